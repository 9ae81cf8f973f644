package carriersim

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"path"
	"slices"
	"strings"
)

//go:embed assets
var assets embed.FS

// thread is what one phone shows.
type thread struct {
	To       string
	Messages []Message
}

func (s *Simulator) inbox(w http.ResponseWriter, _ *http.Request) {
	page, err := template.ParseFS(assets, "assets/inbox.html")
	if err != nil {
		http.Error(w, "the inbox page is broken", http.StatusInternalServerError)
		return
	}
	var threads []*thread
	for _, m := range s.Messages("") {
		i := slices.IndexFunc(threads, func(t *thread) bool { return t.To == m.To })
		if i < 0 {
			i = len(threads)
			threads = append(threads, &thread{To: m.To})
		}
		threads[i].Messages = append(threads[i].Messages, m)
	}
	var html bytes.Buffer
	if err := page.Execute(&html, threads); err != nil {
		http.Error(w, "the inbox page is broken", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	html.WriteTo(w) //nolint:errcheck // the reader has gone
}

func (s *Simulator) asset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	data, err := assets.ReadFile("assets/" + path.Base(name))
	if err != nil || strings.HasSuffix(name, ".html") {
		http.NotFound(w, r)
		return
	}
	types := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
	w.Header().Set("Content-Type", types[path.Ext(name)])
	w.Write(data) //nolint:errcheck,gosec // the reader has gone; the data is embedded
}
