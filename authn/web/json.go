package web

import (
	"context"
	"encoding/json"
	"html"
	"html/template"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/watchword-auth/watchword/internal/httpkit"
)

// Pages that a user interface of one's own can lead a person through have the same handlers, forms and proofs as those in HTML: only what is read and what is
// written differs. See docs/enrolment.md.

type jsonKey struct{}

// speaksJSON lets a page be asked for in JSON.
func speaksJSON(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Accept")
		if accept := r.Header.Get("Accept"); !strings.Contains(accept, "application/json") || strings.Contains(accept, "text/html") {
			next.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(&jsonWriter{ResponseWriter: w}, r.WithContext(context.WithValue(r.Context(), jsonKey{}, true)))
	})
}

// inJSON reports whether the request is answered in JSON.
func inJSON(r *http.Request) bool { return r.Context().Value(jsonKey{}) != nil }

// readForm reads what was posted, as a browser or as a program does.
func (h *Handler) readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	if inJSON(r) {
		return httpkit.ReadObject(w, r, h.origin)
	}
	return httpkit.ReadForm(w, r, h.origin)
}

// jsonWriter tells a program where a browser would be led.
type jsonWriter struct {
	http.ResponseWriter
	led bool
}

// WriteHeader implements http.ResponseWriter.
func (w *jsonWriter) WriteHeader(status int) {
	next := w.Header().Get("Location")
	if status < 300 || status > 399 || next == "" {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.led = true
	w.Header().Del("Location")
	writeJSON(w.ResponseWriter, http.StatusOK, map[string]any{"next": next}) //nolint:errcheck // the reader has gone
}

// Write implements http.ResponseWriter. What would go with a redirect is nothing to a program.
func (w *jsonWriter) Write(data []byte) (int, error) {
	if w.led {
		return len(data), nil
	}
	return w.ResponseWriter.Write(data)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *jsonWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func writeJSON(w http.ResponseWriter, status int, body map[string]any) error {
	header := w.Header()
	if header.Get("Content-Type") == "" || status < 300 {
		header.Set("Content-Type", "application/json")
	}
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(body)
}

// writeProblem answers with RFC 9457.
func writeProblem(w http.ResponseWriter, status int, body map[string]any) error {
	w.Header().Set("Content-Type", "application/problem+json")
	body["type"], body["status"] = "about:blank", status
	return writeJSON(w, status, body)
}

// renderJSON tells a program what the page of that name would show.
func (h *Handler) renderJSON(w http.ResponseWriter, status int, name string, f *frame) error {
	body := map[string]any{"page": name, "title": plainText(f.Title)}
	if f.Proof != "" {
		body["proof"] = f.Proof
	}
	if f.Notice != "" {
		body["notice"] = plainText(f.Notice)
	}
	if page, ok := f.Body.(interface{ facts() any }); ok {
		body["data"] = page.facts()
	}
	if f.retryAfter != "" {
		w.Header().Set("Retry-After", f.retryAfter)
	}
	if len(f.Errors) == 0 && status < 400 {
		return writeJSON(w, status, body)
	}
	var wrong []map[string]string
	for _, e := range f.Errors {
		wrong = append(wrong, map[string]string{"pointer": "/" + e.Field, "message": plainText(e.Text)})
	}
	body["code"], body["detail"] = f.code, plainText(f.Title)
	if len(wrong) > 0 {
		body["errors"], body["detail"] = wrong, wrong[0]["message"]
	}
	return writeProblem(w, max(status, http.StatusBadRequest), body)
}

var markup = regexp.MustCompile(`<[^>]*>`)

// plainText is a text without its markup.
func plainText(text template.HTML) string {
	return html.UnescapeString(markup.ReplaceAllString(string(text), ""))
}
