// Package events tells programs what happened, by webhooks as Standard Webhooks (github.com/standard-webhooks/standard-webhooks, spec) has them.
//
// # Storing
//
// [Add] puts an event into the statement of the state change that it tells: no event without its change, no change without its event, and no round trip of its own. An event is thin: what it is
// about, by id, and the state that it is in now. It has no member for a code or a number; of a number it tells the last two digits at most. Whoever wants to know more
// asks by the id, with credentials of their own.
//
// Every event has an [Owner]: the tenant or the application whose business it is, or the operator. Nobody is told of anybody else's. The same statement puts it into the queue
// of each endpoint that its owner has for such events ([Endpoints]). An owner without endpoints costs one row; the row stays for [Keep], so that
// an endpoint that is made, repaired or enabled later can be told then ([Endpoints.Replay]).
//
// # Delivering
//
// A [Worker] claims what is due (SKIP LOCKED, woken by NOTIFY) and leaves it to nobody else while its claim lasts. The attempt is counted with the claim, before the call. When a
// worker dies in the middle, another calls again once the claim is over: delivery is at least once, and the id (webhook-id) is the same every time. Order is
// not kept. Anything but 2xx is tried again after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h, more or less a tenth. An endpoint that answers 410 is disabled at once, one that has not
// taken anything for days then, both with an audit record.
//
// An endpoint gets few calls at once, and while it fails one at a time, with pauses: the slow and the broken hold up nobody but themselves. Whom we call is not ours to trust: see
// package egress. Of an answer we read the status, and nothing else.
//
// Every body is signed with the endpoint's secret, sealed in the database. After [Endpoints.Rotate] the old one signs beside the new one for a while.
package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/postgres"
)

// Type of an event. The names are stable.
type Type string

// Types.
const (
	VerificationSent        Type = "verification.sent"
	VerificationDelivered   Type = "verification.delivered"
	VerificationUndelivered Type = "verification.undelivered"
	VerificationApproved    Type = "verification.approved"
	VerificationExpired     Type = "verification.expired"
	VerificationFailed      Type = "verification.failed"

	TransactionApproved Type = "transaction.approved"
	TransactionRefused  Type = "transaction.refused"
	TransactionExpired  Type = "transaction.expired"

	FraudReported Type = "fraud.reported"

	UserPhoneAdded       Type = "user.phone_added"
	UserPhoneChanged     Type = "user.phone_changed"
	UserRecoveryStarted  Type = "user.recovery_started"
	UserRecoveryFinished Type = "user.recovery_finished"

	VendorDegraded  Type = "vendor.degraded"
	VendorRecovered Type = "vendor.recovered"

	// WebhookTest is sent by [Worker.Test] alone. Filters do not keep it out.
	WebhookTest Type = "webhook.test"
)

// Types lists what endpoints can be told.
func Types() []Type {
	return []Type{
		VerificationSent, VerificationDelivered, VerificationUndelivered, VerificationApproved, VerificationExpired, VerificationFailed,
		TransactionApproved, TransactionRefused, TransactionExpired, FraudReported,
		UserPhoneAdded, UserPhoneChanged, UserRecoveryStarted, UserRecoveryFinished, VendorDegraded, VendorRecovered,
	}
}

// family is what stands for all types of one beginning: "verification.*".
func (t Type) family() string { return string(t[:strings.IndexByte(string(t), '.')]) + ".*" }

// CheckFilter reports whether each entry is a type or a family of types.
func CheckFilter(filter []string) error {
	for _, entry := range filter {
		if !slices.ContainsFunc(Types(), func(t Type) bool { return entry == string(t) || entry == t.family() }) {
			return fmt.Errorf("%w: there is no event %q", ErrInvalid, entry)
		}
	}
	return nil
}

// Keep is how long events stay. It is also how far back they can be replayed.
const Keep = 30 * 24 * time.Hour

// Owner says whose an event or an endpoint is.
type Owner string

// Operator is whoever runs the server.
const Operator Owner = "operator"

// Beginnings of owners.
const (
	tenantPrefix = "tenant:"
	clientPrefix = "client:"
)

// Tenant is a tenant of the gateway.
func Tenant(id string) Owner { return Owner(tenantPrefix + id) }

// Client is an application that people sign in to.
func Client(id string) Owner { return Owner(clientPrefix + id) }

// TenantSQL is the owner [Tenant] in SQL, of an expression for the tenant's id. NULL stays NULL.
func TenantSQL(id string) string { return "('" + tenantPrefix + "' || (" + id + ")::text)" }

// ClientSQL is the owner [Client] in SQL, of an expression for the application's id. NULL stays NULL.
func ClientSQL(id string) string { return "('" + clientPrefix + "' || (" + id + ")::text)" }

// ParseOwner reads what people write: operator, tenant:ID, client:ID.
func ParseOwner(text string) (Owner, error) {
	for _, prefix := range []string{tenantPrefix, clientPrefix} {
		if id, found := strings.CutPrefix(text, prefix); found && id != "" {
			return Owner(text), nil
		}
	}
	if text == string(Operator) {
		return Operator, nil
	}
	return "", fmt.Errorf("%w: an owner is written operator, tenant:ID or client:ID", ErrInvalid)
}

// Errors of this package that callers tell apart.
var (
	// ErrInvalid says that what was given cannot be used; its text says why, and is for whoever gave it.
	ErrInvalid = errors.New("not valid")
	// ErrNotFound says that the owner has no such endpoint or event.
	ErrNotFound = errors.New("not found")
)

// Beginnings of ids.
const (
	eventPrefix    = "evt_"
	endpointPrefix = "whk_"
)

// ID of an event or an endpoint, as programs see it.
func publicID(prefix string, id uuid.UUID) string {
	return prefix + strings.ReplaceAll(id.String(), "-", "")
}

func parseID(prefix, text string) (uuid.UUID, error) {
	digits, found := strings.CutPrefix(text, prefix)
	id, err := uuid.Parse(digits)
	if !found || err != nil || len(digits) != 32 {
		return uuid.Nil, fmt.Errorf("%w: an id like %s and 32 digits is expected", ErrNotFound, prefix)
	}
	return id, nil
}

// Event is what happened. Fields left empty are not told.
type Event struct {
	Type  Type
	Owner Owner

	ID        string // of what it is about: a verification, a transaction, a subject
	Status    string // that it has now
	Reason    string // a class, never free text
	Channel   string
	Vendor    string
	Hint      string // of the number: no more than its last two digits are told, as "••43"
	ClientRef string // what the owner calls it
	Test      bool   // of test mode: nothing real happened
}

// Expressions replace an event's fields by SQL over the part that the event is added for, where only the statement itself knows the value. Where the expression for Type or Owner is NULL nothing
// is stored: a part may have rows that nobody is told of. Any other that is NULL leaves its field out.
type Expressions struct {
	Type, Owner, ID, Status, Reason, Channel, Vendor, Hint, ClientRef, Test string
}

// told is an event's data.
type told struct {
	ID        string `json:"id,omitempty"`
	Status    string `json:"status,omitempty"`
	Reason    string `json:"reason,omitempty"`
	Channel   string `json:"channel,omitempty"`
	Vendor    string `json:"vendor,omitempty"`
	To        string `json:"to,omitempty"`
	ClientRef string `json:"client_ref,omitempty"`
	Test      bool   `json:"test,omitempty"`
}

// hintDigits of a number are told at most.
const hintDigits = 2

// Add adds part `event_<part>` to q: e is stored once for each row of part, and queued for whoever wants to be told. What is bound is the same for every
// call with the same expressions, so that the statement is prepared once.
//
//	events.Add(q, "approved", events.Event{Type: events.VerificationApproved, Status: "approved"},
//		events.Expressions{Owner: events.TenantSQL("approved.tenant_id"), ID: "'vrf_' || approved.public_id"})
func Add(q *postgres.Query, part string, e Event, over Expressions) {
	data := told{ID: e.ID, Status: e.Status, Reason: e.Reason, Channel: e.Channel, Vendor: e.Vendor, ClientRef: e.ClientRef, Test: e.Test}
	if e.Hint != "" {
		data.To = "••" + e.Hint[max(0, len(e.Hint)-hintDigits):]
	}
	fixed, err := json.Marshal(data)
	if err != nil {
		panic(err) // strings and a boolean
	}
	value := func(expr string, v any, cast string) string {
		if expr != "" {
			return expr
		}
		return q.Bind(v) + cast
	}
	kind, owner := value(over.Type, string(e.Type), "::text"), value(over.Owner, string(e.Owner), "::text")
	content := q.Bind(string(fixed)) + "::jsonb"
	if over.Hint != "" {
		over.Hint = fmt.Sprintf("'••' || right(%s, %d)", over.Hint, hintDigits)
	}
	if over.Test != "" {
		over.Test = "nullif(" + over.Test + ", false)"
	}
	var pairs []string
	for _, field := range []struct{ name, expr string }{
		{"id", over.ID}, {"status", over.Status}, {"reason", over.Reason}, {"channel", over.Channel}, {"vendor", over.Vendor}, {"to", over.Hint},
		{"client_ref", over.ClientRef}, {"test", over.Test},
	} {
		if field.expr != "" {
			pairs = append(pairs, "'"+field.name+"', "+field.expr)
		}
	}
	if len(pairs) > 0 {
		content += " || jsonb_strip_nulls(jsonb_build_object(" + strings.Join(pairs, ", ") + "))"
	}
	q.With("event_"+part, fmt.Sprintf(`
		INSERT INTO events AS e (owner, type, data)
		SELECT happened.owner, happened.type, happened.data FROM (SELECT %s AS owner, %s AS type, %s AS data FROM %s) happened
		 WHERE happened.owner IS NOT NULL AND happened.type IS NOT NULL
		RETURNING id, created_at, owner, type, ARRAY(SELECT webhook_enqueue(w.id, e.id, e.created_at) FROM webhook_endpoints w WHERE w.owner = e.owner AND %s AND %s) AS queued`,
		owner, kind, content, part, open("w"), wants("w", "e.type")))
}

// channel that workers are told by.
const channel = "webhook_queue"

// open is an SQL condition: the endpoint takes events now.
func open(w string) string {
	return fmt.Sprintf("%[1]s.disabled_at IS NULL AND (%[1]s.listen_until IS NULL OR %[1]s.listen_until > wall())", w)
}

// wants is an SQL condition: the endpoint's filter lets a type pass.
func wants(w, kind string) string {
	return fmt.Sprintf("(%[1]s.events = '{}' OR %[1]s.events && ARRAY[%[2]s, split_part(%[2]s, '.', 1) || '.*'])", w, kind)
}

// Emit stores an event in a statement of its own: of what changed in no database.
func Emit(ctx context.Context, db *postgres.DB, e Event) error {
	q := new(postgres.Query)
	q.With("emitted", "SELECT 1")
	Add(q, "emitted", e, Expressions{})
	q.Finally("SELECT 1 FROM event_emitted")
	_, err := db.Run(ctx, q)
	return err
}

// EmitVendor tells the operator that a vendor stopped working or works again, unless that was the last thing said of it: every server finds out for itself, and one is enough to be told
// by. Where two find out in the same moment both may say so.
func EmitVendor(ctx context.Context, db *postgres.DB, vendor string, up bool) error {
	e := Event{Type: VendorDegraded, Owner: Operator, Vendor: vendor, Status: "degraded"}
	if up {
		e.Type, e.Status = VendorRecovered, "working"
	}
	q := new(postgres.Query)
	q.With("before", fmt.Sprintf(`
		SELECT e.type FROM events e WHERE e.owner = '%s' AND e.created_at > wall() - interval '7 days' AND e.type IN ('%s', '%s') AND e.data->>'vendor' = %s
		 ORDER BY e.created_at DESC LIMIT 1`, Operator, VendorDegraded, VendorRecovered, q.Bind(vendor)+"::text"))
	q.With("changed", fmt.Sprintf("SELECT 1 WHERE coalesce((SELECT type FROM before), '%s') <> %s", VendorRecovered, q.Bind(string(e.Type))+"::text"))
	Add(q, "changed", e, Expressions{})
	q.Finally("SELECT 1 FROM event_changed")
	_, err := db.Run(ctx, q)
	return err
}
