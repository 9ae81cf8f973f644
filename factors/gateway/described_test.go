package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

// descriptions are those that were agreed on, read by a library that others wrote.
var descriptions = sync.OnceValues(func() ([]routers.Router, error) {
	var all []routers.Router
	for _, name := range []string{"testdata/openapi.json", "testdata/openapi-3.0.json"} {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		doc, err := openapi3.NewLoader().LoadFromData(data)
		if err != nil {
			return nil, err
		}
		doc.Servers = nil // whatever a test calls the server
		if err := doc.Validate(context.Background(), openapi3.EnableExamplesValidation(), openapi3.EnableSchemaPatternValidation(), openapi3.EnableSchemaFormatValidation()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		router, err := gorillamux.NewRouter(doc)
		if err != nil {
			return nil, err
		}
		all = append(all, router)
	}
	return all, nil
})

// described fails unless an answer is one that both descriptions have for what was asked. What they do not know is no concern of theirs.
func described(t testing.TB, r *http.Request, status int, header http.Header, body []byte) {
	t.Helper()
	all, err := descriptions()
	must(t, err)
	for _, router := range all {
		route, path, err := router.FindRoute(r)
		if err != nil {
			continue
		}
		input := &openapi3filter.ResponseValidationInput{
			RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, Route: route, PathParams: path},
			Status:                 status, Header: header, Body: io.NopCloser(bytes.NewReader(body)), Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true},
		}
		if err := openapi3filter.ValidateResponse(r.Context(), input); err != nil {
			t.Errorf("%s %s answers otherwise than OpenAPI %s says: %v", r.Method, route.Path, route.Spec.OpenAPI, err)
		}
	}
}

// askable fails unless both descriptions allow a request.
func askable(t testing.TB, r *http.Request) {
	t.Helper()
	all, err := descriptions()
	must(t, err)
	for _, router := range all {
		route, path, err := router.FindRoute(r)
		must(t, err)
		input := &openapi3filter.RequestValidationInput{Request: r, Route: route, PathParams: path, Options: &openapi3filter.Options{MultiError: true, AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}}
		if err := openapi3filter.ValidateRequest(r.Context(), input); err != nil {
			t.Errorf("%s %s is not what OpenAPI %s asks for: %v", r.Method, r.URL.Path, route.Spec.OpenAPI, err)
		}
	}
}
