package gateway

import (
	"net/http"
	"strings"

	"github.com/watchword-auth/watchword/internal/rest"
)

// Reference is the page about the API.
func Reference() rest.Link { return rest.Link{Title: "API of the OTP gateway", Path: "/docs/api"} }

// pages are those for people.
func (g *Gateway) pages() *rest.Pages {
	pages := g.Pages
	if pages.References == nil {
		pages.References = []rest.Link{Reference()}
	}
	return &pages
}

// reference is what the page about the API needs.
func (g *Gateway) reference() *rest.Reference {
	of := &rest.Reference{
		Link: Reference(), Described: describedAt, DescribedOld: describedAtOld, Describe: g.Describe, Curl: g.curl, ID: exampleID, Thing: "verification", Secret: "WATCHWORD_API_KEY", Credential: "API key",
	}
	for _, op := range g.operations() {
		of.Operations = append(of.Operations, op.Operation)
	}
	return of
}

// curl is an operation's example as a command.
func (g *Gateway) curl(op *rest.Operation) string {
	target := g.Docs + strings.ReplaceAll(op.Path, "{id}", exampleID)
	if op.ID == "otpStatus" {
		target += "?requestId=" + exampleID
	}
	command := "curl " + target + ` -H "X-API-Key: $WATCHWORD_API_KEY"`
	if op.ID == "createVerification" {
		command += " -H 'Idempotency-Key: order-4711'"
	}
	if op.Method == http.MethodPost {
		command += " \\\n  -H 'Content-Type: application/json' -d '" + op.Example + "'"
	}
	return command
}
