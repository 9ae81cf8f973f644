package httpkit

import (
	"context"
	"net/http"
	"time"
)

// bound is how long the work for a request may take.
type bound struct {
	w          http.ResponseWriter
	connection context.Context //nolint:containedctx // of the request, without the bound
	length     time.Duration
	waited     time.Duration
}

type boundKey struct{}

// Bound ends the context of a request after some time, but for what it spends in [Wait].
func Bound(w http.ResponseWriter, r *http.Request, length time.Duration) (*http.Request, context.CancelFunc) {
	b := &bound{w: w, connection: r.Context(), length: length}
	ctx, cancel := context.WithTimeout(context.WithValue(r.Context(), boundKey{}, b), length)
	return r.WithContext(ctx), cancel
}

// Wait is for a request that waits for something that is not its own work, such as a person. wait gets a context that ends with the connection, and with nothing else; it has to bound itself. What is left to do
// afterwards has as much time as the request had in the beginning, and its answer as much again to be written, whatever the server allows others. Without [Bound] the context has no bound before or after.
func Wait(ctx context.Context, wait func(context.Context)) (context.Context, context.CancelFunc) {
	b, ok := ctx.Value(boundKey{}).(*bound)
	if !ok {
		wait(ctx)
		return context.WithCancel(ctx)
	}
	free := unbound{b.connection, ctx}
	controller := http.NewResponseController(b.w)
	controller.SetWriteDeadline(time.Time{}) //nolint:errcheck // where there is none none is in the way. With HTTP/2 the stream would end with it
	began := time.Now()                      //nolint:forbidigo // of a connection, as the deadlines of net/http
	wait(free)
	now := time.Now() //nolint:forbidigo // as above
	b.waited += now.Sub(began)
	controller.SetWriteDeadline(now.Add(2 * b.length)) //nolint:errcheck // where there is none none is in the way
	return context.WithTimeout(free, b.length)
}

// Waited is how long the request has spent in [Wait].
func Waited(ctx context.Context) time.Duration {
	if b, ok := ctx.Value(boundKey{}).(*bound); ok {
		return b.waited
	}
	return 0
}

// unbound ends with the connection and has the values of a context that ends before.
type unbound struct {
	context.Context //nolint:containedctx // it is one

	values context.Context //nolint:containedctx // of the same request
}

// Value implements context.Context.
func (u unbound) Value(key any) any { return u.values.Value(key) }
