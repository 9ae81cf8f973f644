package rest

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxKey bounds an idempotency key.
const maxKey = 255

// Headers are those of every answer.
func Headers(w http.ResponseWriter, contentType string) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
}

// Send answers with a body of JSON.
func Send(w http.ResponseWriter, status int, body []byte) {
	kind := "application/json"
	if status >= http.StatusBadRequest {
		kind = "application/problem+json"
	}
	Headers(w, kind)
	w.WriteHeader(status)
	w.Write(append(body, '\n')) //nolint:errcheck,gosec // the asker is gone; it is JSON, and said to be
}

// SendProblem answers with a problem, written as body.
func SendProblem(w http.ResponseWriter, p *Problem, body []byte) {
	if p.RetryAfter != nil {
		w.Header().Set("Retry-After", strconv.Itoa(*p.RetryAfter))
	}
	if p.Status == http.StatusUnauthorized && w.Header().Get("WWW-Authenticate") == "" {
		w.Header().Set("WWW-Authenticate", `Bearer realm="api"`)
	}
	Send(w, p.Status, body)
}

// ReadBody reads a body of JSON of so many bytes at most, whole.
func ReadBody(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	if r.Header.Get("Content-Encoding") != "" {
		return nil, New(UnsupportedType)
	}
	kind, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset := parameters["charset"]
	if err != nil || kind != "application/json" || charset != "" && !strings.EqualFold(charset, "utf-8") {
		if r.ContentLength == 0 && r.Header.Get("Content-Type") == "" {
			return []byte("{}"), nil
		}
		return nil, New(UnsupportedType)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, New(TooLarge)
	}
	if err != nil {
		return nil, Invalid("", "the body could not be read")
	}
	if len(body) == 0 {
		return []byte("{}"), nil
	}
	return body, nil
}

// Decode reads a body into a request: one object, with members that exist, each once, of the right type, and hence no deeper than its type. What is wrong is said without
// repeating it.
func Decode(body []byte, into any) *Problem {
	err := jsonv2.Unmarshal(body, into, jsonv2.RejectUnknownMembers(true), jsontext.AllowDuplicateNames(false), jsontext.AllowInvalidUTF8(false))
	if err == nil {
		if bytes.Equal(bytes.TrimSpace(body), []byte("null")) {
			return Invalid("", "is not an object")
		}
		return nil
	}
	if e, ok := errors.AsType[*jsonv2.SemanticError](err); ok {
		if errors.Is(err, jsonv2.ErrUnknownName) {
			return Invalid(known(string(e.JSONPointer), into), "has a member that is not known")
		}
		return Invalid(known(string(e.JSONPointer), into), wanted(e.GoType))
	}
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok && errors.Is(err, jsontext.ErrDuplicateName) {
		return Invalid(known(string(e.JSONPointer), into), "has a member twice")
	}
	return Invalid("", "is not JSON")
}

// wanted says of a value what it is not, which is what is wanted.
func wanted(t reflect.Type) string {
	if t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == nil:
	case t.Kind() == reflect.String:
		return "is not a string"
	case t.Kind() == reflect.Bool:
		return "is neither true nor false"
	case t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8:
		return "is not an array"
	case t.Kind() == reflect.Struct && t != reflect.TypeFor[time.Time](), t.Kind() == reflect.Map:
		return "is not an object"
	case t.ConvertibleTo(reflect.TypeFor[int]()):
		return "is not a whole number, or is out of range"
	}
	return "is of the wrong type"
}

// known is the part of a pointer that is the API's own: names that the caller made up are not repeated.
func known(pointer string, into any) string {
	fields := fieldNames(into)
	var kept strings.Builder
	for part := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		if _, err := strconv.Atoi(part); err != nil && !fields[part] {
			break
		}
		kept.WriteString("/" + part)
	}
	return kept.String()
}

// UsableKey reports whether a text can be an idempotency key.
func UsableKey(key string) bool {
	return key != "" && len(key) <= maxKey && !strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' })
}

// fieldNames are the names that a type has in JSON, at any depth.
func fieldNames(v any) map[string]bool {
	names := map[string]bool{}
	var walk func(t reflect.Type)
	walk = func(t reflect.Type) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			if name != "" && name != "-" {
				names[name] = true
				walk(t.Field(i).Type)
			}
		}
	}
	walk(reflect.TypeOf(v))
	return names
}
