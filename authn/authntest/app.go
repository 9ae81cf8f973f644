package authntest

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/factors"
)

// AppKind is that of [App].
const AppKind = "app"

// App is a factor that is not restricted, for worlds that need one: whoever holds the authenticator knows its one code.
type App struct{}

// Kind implements factors.Factor.
func (App) Kind() string { return AppKind }

// AMR implements factors.Factor.
func (App) AMR() []string { return []string{"otp"} }

// Restricted implements factors.Factor.
func (App) Restricted() bool { return false }

// Parse implements factors.Factor.
func (App) Parse(typed string) (string, error) { return factors.ParseTyped(typed, 6) }

// Issue implements factors.Factor.
func (App) Issue(context.Context, factors.Authenticator, factors.Prompt) (factors.Issued, error) {
	return factors.Issued{Life: 10 * time.Minute}, nil
}

// Check implements factors.Checker.
func (App) Check(_ context.Context, a factors.Authenticator, answer string) error {
	if answer != string(a.Data) {
		return factors.ErrMismatch
	}
	return nil
}

// AppCode is the code of every [App].
const AppCode = "271828"

// App binds an app to a subscriber of a world that was made with one, and gives the authenticator's id.
func (w *World) App(t testing.TB, subscriber uuid.UUID) uuid.UUID {
	t.Helper()
	a := factors.Authenticator{ID: uuid.New(), Kind: AppKind, Data: []byte(AppCode)}
	if err := w.Service.Bind(t.Context(), subscriber, authn.Binding{Authenticator: a}); err != nil {
		t.Fatal(err)
	}
	return a.ID
}
