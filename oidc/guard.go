package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	zoidc "github.com/zitadel/oidc/v3/pkg/oidc"
)

// maxForm bounds a request to the back channel: a client assertion and a code fit many times over.
const maxForm = 64 << 10

// guardForm refuses what the library would let pass at its form endpoints: other methods than POST, other bodies than forms, parameters in
// the query, and repeated ones (RFC 6749 section 3.2). It forbids caching of every answer.
func (p *Provider) guardForm(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		channel := &backChannel{ResponseWriter: w, challenge: basicChallenge(r)}
		w, r = channel, r.WithContext(context.WithValue(r.Context(), channelKey{}, channel))
		p.allowOrigin(w, r)
		if p.DPoPNonce && r.Header.Get("DPoP") != "" {
			w.Header().Set("DPoP-Nonce", p.nonce(p.Now()))
		}
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			writeError(w, http.StatusMethodNotAllowed, errInvalidRequest("use POST"))
			return
		}
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
			writeError(w, http.StatusUnsupportedMediaType, errInvalidRequest("use application/x-www-form-urlencoded"))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			if _, large := errors.AsType[*http.MaxBytesError](err); large {
				writeError(w, http.StatusRequestEntityTooLarge, errInvalidRequest("the body is too large"))
				return
			}
			writeError(w, http.StatusBadRequest, errInvalidRequest("the body is not a form"))
			return
		}
		if r.URL.RawQuery != "" {
			writeError(w, http.StatusBadRequest, errInvalidRequest("parameters belong into the body"))
			return
		}
		if repeated(r.PostForm) {
			writeError(w, http.StatusBadRequest, errInvalidRequest("a parameter is repeated"))
			return
		}
		if err := oneMethod(r); err != nil {
			writeError(w, http.StatusBadRequest, err)
			return
		}
		if r.URL.Path == tokenPath && r.PostForm.Get("grant_type") != "" && !slices.Contains(grantTypes(), zoidc.GrantType(r.PostForm.Get("grant_type"))) {
			writeError(w, http.StatusBadRequest, &zoidc.Error{ErrorType: zoidc.UnsupportedGrantType}) // the library would repeat what was sent
			return
		}
		if r.URL.Path == introspectPath && r.Header.Get("Authorization") == "" && !r.PostForm.Has("client_secret") && !r.PostForm.Has("client_assertion") {
			writeError(w, http.StatusUnauthorized, errInvalidClient()) // RFC 7662 section 2.1; the library says 400
			return
		}
		next.ServeHTTP(w, r)
	})
}

// guardBearer lets a token come in the header alone: RFC 6750 section 2.1, RFC 9449 section 7.1.
func (p *Provider) guardBearer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		channel := &backChannel{ResponseWriter: w, challenge: `Bearer error="invalid_token"`, method: r.Method}
		w, r = channel, r.WithContext(context.WithValue(r.Context(), channelKey{}, channel))
		p.allowOrigin(w, r)
		if p.DPoPNonce && r.Header.Get("DPoP") != "" {
			w.Header().Set("DPoP-Nonce", p.nonce(p.Now()))
		}
		switch r.Method {
		case http.MethodOptions:
			w.WriteHeader(http.StatusNoContent)
			return
		case http.MethodGet, http.MethodPost:
		default:
			w.Header().Set("Allow", "GET, POST")
			writeError(w, http.StatusMethodNotAllowed, errInvalidRequest("use GET or POST"))
			return
		}
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		channel.bound = strings.EqualFold(scheme, schemeDPoP)
		if !channel.bound && !strings.EqualFold(scheme, zoidc.BearerToken) || token == "" || len(r.Header.Values("Authorization")) != 1 {
			w.Header().Set("WWW-Authenticate", zoidc.BearerToken)
			w.Header().Add("WWW-Authenticate", dpopChallenge(""))
			writeError(w, http.StatusUnauthorized, errInvalidRequest("send the access token in the Authorization header"))
			return
		}
		// The library reads a token from query and body too; here only the header counts.
		clean := r.Clone(r.Context())
		clean.URL.RawQuery, clean.Body, clean.Method = "", http.NoBody, http.MethodGet
		clean.Form, clean.PostForm = url.Values{}, url.Values{}
		clean.Header.Set("Authorization", "Bearer "+token)
		next.ServeHTTP(w, clean)
	})
}

// guardDocument serves what anybody may read from anywhere.
func (p *Provider) guardDocument(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			writeError(w, http.StatusMethodNotAllowed, errInvalidRequest("use GET"))
			return
		}
		w.Header().Set("Cache-Control", "public, max-age=60")
		next.ServeHTTP(w, r)
	})
}

// allowOrigin lets scripts of registered applications read the answer, without credentials.
func (p *Provider) allowOrigin(w http.ResponseWriter, r *http.Request) {
	w.Header().Add("Vary", "Origin")
	asking := r.Header.Get("Origin")
	if asking == "" || asking == "null" || !p.Clients.knowsOrigin(asking) {
		return
	}
	w.Header().Set("Access-Control-Allow-Origin", asking)
	w.Header().Set("Access-Control-Allow-Headers", "Authorization, Content-Type, DPoP")
	w.Header().Set("Access-Control-Expose-Headers", "DPoP-Nonce, WWW-Authenticate")
	w.Header().Set("Access-Control-Allow-Methods", "GET, POST")
}

// knowsOrigin reports whether a public client in memory has a redirect at that origin. A script's client has been used at the authorization
// endpoint before, hence is in memory, though perhaps older than what [Clients.Get] would give: nobody is let in by it.
func (s *Clients) knowsOrigin(asking string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, c := range s.known {
		if c.public() && c.DisabledAt == nil && slices.ContainsFunc(c.Registration.RedirectURIs, func(uri string) bool { return origin(uri) == asking }) {
			return true
		}
	}
	return false
}

func repeated(form url.Values) bool {
	for _, values := range form {
		if len(values) > 1 {
			return true
		}
	}
	return false
}

// oneMethod refuses a request that authenticates the client in more than one way: RFC 6749 section 2.3.
func oneMethod(r *http.Request) *zoidc.Error {
	methods := 0
	for _, used := range []bool{r.Header.Get("Authorization") != "", r.PostForm.Has("client_secret"), r.PostForm.Has("client_assertion") || r.PostForm.Has("client_assertion_type")} {
		if used {
			methods++
		}
	}
	if methods > 1 || len(r.Header.Values("Authorization")) > 1 {
		return errInvalidRequest("authenticate the client in one way only")
	}
	return nil
}

func basicChallenge(r *http.Request) string {
	if r.Header.Get("Authorization") == "" {
		return ""
	}
	return `Basic realm="token endpoint"` // RFC 6749 section 5.2: the scheme that the client used
}

func writeError(w http.ResponseWriter, status int, e *zoidc.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(e) //nolint:errcheck,errchkjson // the caller has gone
}

// backChannel adds the headers that the library leaves out.
type backChannel struct {
	http.ResponseWriter
	challenge string
	method    string // of the request, which the library is shown as a GET
	bound     bool   // the access token came under the scheme DPoP
}

type channelKey struct{}

// channelOf is what a request of the back channel is answered by.
func channelOf(ctx context.Context) *backChannel { return ctx.Value(channelKey{}).(*backChannel) }

// dpopChallenge is the WWW-Authenticate of RFC 9449 section 7.1.
func dpopChallenge(code string) string {
	var algs []string
	for _, alg := range proofAlgs {
		algs = append(algs, string(alg))
	}
	if code != "" {
		code = `error="` + code + `", `
	}
	return schemeDPoP + " " + code + `algs="` + strings.Join(algs, " ") + `"`
}

// WriteHeader implements http.ResponseWriter.
func (b *backChannel) WriteHeader(status int) {
	h := b.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	switch {
	case status == http.StatusUnauthorized && b.challenge != "" && h.Get("WWW-Authenticate") == "":
		h.Set("WWW-Authenticate", b.challenge)
	case status == http.StatusServiceUnavailable:
		h.Set("Retry-After", retryAfter)
	}
	b.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (b *backChannel) Write(data []byte) (int, error) {
	if b.Header().Get("Cache-Control") == "" {
		b.WriteHeader(http.StatusOK)
	}
	return b.ResponseWriter.Write(data)
}

// Unwrap lets http.ResponseController reach the writer below.
func (b *backChannel) Unwrap() http.ResponseWriter { return b.ResponseWriter }
