package authntest

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/factors"
)

// DeviceKind is that of [Device].
const DeviceKind = "device"

// Device is a factor that is not restricted, for worlds that need one: whoever holds the authenticator knows its one code.
type Device struct{}

// Kind implements factors.Factor.
func (Device) Kind() string { return DeviceKind }

// AMR implements factors.Factor.
func (Device) AMR() []string { return []string{"otp"} }

// Restricted implements factors.Factor.
func (Device) Restricted() bool { return false }

// Parse implements factors.Factor.
func (Device) Parse(typed string) (string, error) { return factors.ParseTyped(typed, 6) }

// Issue implements factors.Factor.
func (Device) Issue(context.Context, factors.Authenticator, factors.Prompt) (factors.Issued, error) {
	return factors.Issued{Life: 10 * time.Minute}, nil
}

// Check implements factors.Checker. The code is good again and again.
func (Device) Check(_ context.Context, a factors.Authenticator, answer string, bind func(any) string) (factors.Check, error) {
	return factors.Check{Right: bind(answer == string(a.Data)) + "::bool"}, nil
}

// Page implements factors.Paged.
func (Device) Page() factors.Page { return factors.Page{Name: "device", Digits: true} }

// DeviceCode is the code of every [Device].
const DeviceCode = "271828"

// Device binds a device to a subscriber of a world that was made with one, and gives the authenticator's id.
func (w *World) Device(t testing.TB, subscriber uuid.UUID) uuid.UUID {
	t.Helper()
	a := factors.Authenticator{ID: uuid.New(), Kind: DeviceKind, Data: []byte(DeviceCode)}
	if err := w.Service.Bind(t.Context(), subscriber, authn.Binding{Authenticator: a}); err != nil {
		t.Fatal(err)
	}
	return a.ID
}
