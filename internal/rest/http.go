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
		at, whole := known(string(e.JSONPointer), into)
		switch {
		case errors.Is(err, jsonv2.ErrUnknownName):
			return Invalid(at, "has a member that is not known")
		case !whole:
			return Invalid(at, "has a value that "+wanted(e.GoType))
		}
		return Invalid(at, wanted(e.GoType))
	}
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok && errors.Is(err, jsontext.ErrDuplicateName) {
		at, whole := known(string(e.JSONPointer), into)
		if whole {
			return Invalid(at, "is there twice")
		}
		return Invalid(at, "has a member twice")
	}
	return Invalid("", "is not JSON")
}

// wanted says of a value what it is not, which is what is wanted.
func wanted(t reflect.Type) string {
	if t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil {
		return "is of the wrong type"
	}
	switch t.Kind() { //nolint:exhaustive // no request has members of other kinds
	case reflect.String:
		return "is not a string"
	case reflect.Bool:
		return "is neither true nor false"
	case reflect.Slice:
		return "is not an array"
	case reflect.Struct, reflect.Map:
		return "is not an object"
	case reflect.Int:
		return "is not a whole number, or is out of range"
	}
	return "is of the wrong type"
}

// known is the part of a pointer that is the API's own, and whether that is the whole of it: names that the caller made up are not repeated.
func known(pointer string, into any) (at string, whole bool) {
	t := reflect.TypeOf(into)
	if pointer == "" {
		return "", true
	}
	for part := range strings.SplitSeq(pointer[1:], "/") {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch t.Kind() { //nolint:exhaustive // nothing else has members
		case reflect.Slice:
			t = t.Elem() // part is an index: the decoder knows of no other there
		case reflect.Struct:
			field, found := member(t, part)
			if !found {
				return at, false
			}
			t = field
		default:
			return at, false
		}
		at += "/" + part
	}
	return at, true
}

// member is the type of a member that a struct has in JSON.
func member(t reflect.Type, name string) (reflect.Type, bool) {
	for field := range t.Fields() {
		if called, _, _ := strings.Cut(field.Tag.Get("json"), ","); called == name && name != "-" {
			return field.Type, true
		}
	}
	return nil, false
}

// UsableKey reports whether a text can be an idempotency key.
func UsableKey(key string) bool {
	return key != "" && len(key) <= maxKey && !strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' })
}
