package gateway

import (
	"time"

	"github.com/swaggest/openapi-go"

	"github.com/watchword-auth/watchword/internal/rest"
)

// Describe writes the API's description: OpenAPI 3.1, or 3.0.3 for tools that read no newer one.
func (g *Gateway) Describe(old bool) ([]byte, error) {
	d := rest.Description{
		Title: "Watchword OTP gateway", Server: g.Docs, Prefix: "Gateway", Closed: []string{"Transaction", "Way"}, Example: exampleAnswer,
		Answers: []any{Verification{}, List{}, Delivery{}, CheckResult{}, SendAnswer{}, VerifyAnswer{}, StatusAnswer{}},
		Text: "Verify phones from any program: send a code, check it, see whether the text arrived. Errors are application/problem+json (RFC 9457); decide by code. " +
			"Keys that begin with otp_test_ reach no phone: every code is 123456, and some numbers have a story of their own. Members may be added to answers at any time.",
		Secure: func(spec openapi.SpecSchema) []string {
			spec.SetAPIKeySecurity("key", "X-API-Key", openapi.InHeader, "A key of the tenant's, otp_live_… or otp_test_….")
			spec.SetHTTPBearerTokenSecurity("bearer", "", "The same key, or an access token that an application of the tenant's got for itself (RFC 6749 section 4.4).")
			return []string{"key", "bearer"}
		},
	}
	for _, op := range g.operations() {
		d.Operations = append(d.Operations, op.Operation)
	}
	return d.Describe(old)
}

// exampleID stands for the id of a verification.
const exampleID = "vrf_…"

// exampleAnswer is the answer to an operation's example.
func exampleAnswer(op *rest.Operation) any {
	began := time.Date(2026, 1, 2, 10, 0, 0, 0, time.UTC)
	resend, ended := began.Add(30*time.Second), began.Add(time.Minute)
	v := Verification{ID: exampleID, Status: StatusPending, Test: true, To: "••00", Country: "US", Purpose: "sign_up", ClientRef: "order-4711", AttemptsLeft: 5,
		Deliveries: []Delivery{{ID: "dlv_…", Channel: "sms", Status: DeliveryDelivered, CreatedAt: began, UpdatedAt: began}}, CreatedAt: began, ExpiresAt: began.Add(MaxLife), ResendAt: &resend}
	switch out := op.Output.(type) {
	case Verification:
		switch op.ID {
		case "createVerification": // what is sent is sent after it
			v.Deliveries = []Delivery{}
		case "cancelVerification":
			v.Status, v.ResendAt, v.EndedAt = StatusCanceled, nil, &ended
		}
		return v
	case List:
		return List{Data: []Verification{v}}
	case CheckResult:
		return CheckResult{ID: exampleID, Status: StatusApproved, Valid: true, AttemptsLeft: 4}
	case SendAnswer:
		out.Data.RequestID, out.Data.ExpiresAt, out.Data.AttemptsLeft, out.Data.Status = exampleID, v.ExpiresAt, v.AttemptsLeft, v.Status
		return out
	case VerifyAnswer:
		out.Data.Verified = true
		return out
	case StatusAnswer:
		out.Data.RequestID, out.Data.Status, out.Data.Channel, out.Data.UpdatedAt, out.DeliveryStatus = exampleID, v.Status, "sms", began, "DELIVERED"
		return out
	}
	return nil
}
