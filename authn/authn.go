// Package authn decides whether a sign-in is good enough.
//
// # What it keeps
//
// A subscriber has a password and authenticators. A browser has a [Session]: a cookie of 256 random bits, stored hashed,
// and a list of [Event], one for each proof that succeeded. What a session is worth is derived from those events and from
// nothing else: not from what is enrolled, not from what was asked. A [SignIn] is one attempt: what an application
// asked for, bound to the browser that began it.
//
// # How it decides
//
// [Decide] is one pure function over the database's time, the session, the [Requirement] and the [Policy]. It is asked when a sign-in begins,
// after every step, and once more right before the application is answered. Every step is a conditional statement that
// finds the sign-in only under its own browser's cookie, so that a step cannot be skipped by asking for a later one:
// what was not recorded did not happen.
//
// # What it does not know
//
// It knows neither OpenID Connect nor text messages: the protocol's request is carried opaque in [SignIn.Payload], and factors
// are known by kind, strength and amr alone.
//
// Tables: subscribers, identifiers, sessions, session_events, sign_ins, consents, browsers.
package authn

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Level orders what a session proves. Each includes the ones below.
type Level uint8

// Levels. Their names in tokens are configuration, see [LevelNames].
const (
	NoLevel           Level = iota
	RecoveryLevel           // got back in: may only repair the account
	PasswordLevel           // password
	RestrictedLevel         // password and a restricted factor, or a backup code
	UnrestrictedLevel       // password and an unrestricted factor
)

// LevelNames are the acr values of levels.
type LevelNames map[Level]string

// DefaultLevelNames are used unless the operator names the levels otherwise.
func DefaultLevelNames() LevelNames {
	return LevelNames{
		RecoveryLevel: "urn:watchword:acr:recovery", PasswordLevel: "urn:watchword:acr:1",
		RestrictedLevel: "urn:watchword:acr:2", UnrestrictedLevel: "urn:watchword:acr:3",
	}
}

// Level is the level of that name. Applications cannot ask for recovery.
func (n LevelNames) Level(name string) (Level, bool) {
	for level, have := range n {
		if have == name && level != RecoveryLevel {
			return level, true
		}
	}
	return NoLevel, false
}

// Supported lists the names that applications may ask for up to level most, weakest first.
func (n LevelNames) Supported(most Level) (names []string) {
	for level := PasswordLevel; level <= most; level++ {
		names = append(names, n[level])
	}
	return names
}

// Told is what an application is told that asked for these names, of a sign-in that reached a level. Levels include those below: where the one reached is not
// among those that were asked for, it is the highest of them that was.
func (n LevelNames) Told(reached Level, asked []string) string {
	best := NoLevel
	for _, name := range asked {
		if level, ok := n.Level(name); ok && level <= reached {
			best = max(best, level)
		}
	}
	if best != NoLevel {
		return n[best]
	}
	return n[reached]
}

// Strength is what one event proves.
type Strength uint8

// Strengths.
const (
	Recognised   Strength = iota // nothing: the browser is one that its person had remembered
	Knowledge                    // the password
	Restricted                   // possession that SP 800-63B-4 section 3.2.9 restricts: SMS, voice; also a backup code
	Unrestricted                 // possession: an authenticator app
)

// Event is one proof that succeeded.
type Event struct {
	At              time.Time `json:"at"`
	Strength        Strength  `json:"strength"`
	Kind            string    `json:"kind"` // of the factor; "" for the password, [BrowserKind] for a remembered browser
	AMR             []string  `json:"amr"`  // RFC 8176 section 2, without "mfa"
	AuthenticatorID uuid.UUID `json:"authenticator_id"`
	SignInID        uuid.UUID `json:"sign_in_id"`
}

// Session is a browser's.
type Session struct {
	ID         uuid.UUID
	SID        string    // the name applications know it by
	Subscriber uuid.UUID // uuid.Nil until a password was right
	Subject    string    // sub: the name applications know the subscriber by
	Username   string
	Groups     []string   // of the subscriber, for policy
	Source     netip.Addr // where this request came from, for policy; the zero value: unknown
	Recovery   uuid.UUID  // the recovery that it was opened for; uuid.Nil: none. It is at [RecoveryLevel] then, whatever it has proved
	Events     []Event
	Bound      []factors.Authenticator // what the subscriber has, the last used first, what runs out last of all
	Offers     []Strength              // the strength of each of Bound; 0: it has run out, or policy does not take it in this sign-in
	LoginOnly  []bool                  // each of Bound: it signs in, and adds nothing to a session that has a factor already
	CreatedAt  time.Time
}

// Requirement is what an application asks of one sign-in.
type Requirement struct {
	// Levels that were asked for, in order of preference. Empty: whatever policy wants.
	Levels []Level `json:"levels,omitempty"`
	// Unmeetable says that only values nobody knows were demanded as essential.
	Unmeetable bool `json:"unmeetable,omitempty"`
	// MaxAge of every proof, in seconds; negative: any age. OpenID Connect Core 3.1.2.1.
	MaxAge int64 `json:"max_age"`
	// Fresh wants every proof to be given in this sign-in: prompt=login.
	Fresh bool `json:"fresh,omitempty"`
	// Silent forbids every page: prompt=none.
	Silent bool `json:"silent,omitempty"`
	// Consent wants the consent page even if consent was given: prompt=consent.
	Consent bool `json:"consent,omitempty"`
	// Subject that the application expects, from id_token_hint or the claims parameter; "": anybody.
	Subject string `json:"subject,omitempty"`
	// Strongest wants proofs as for changes of what the person can be asked for: see [ErrNotFresh].
	Strongest bool `json:"strongest,omitempty"`
	// Scopes that a person has to allow, unless the application is the operator's own: all that it will get, and never none, so that whoever signs in
	// to it for the first time is asked.
	Scopes []string `json:"scopes,omitempty"`
	// Details that a person has to allow each time, likewise.
	Details []Detail `json:"details,omitempty"`
	// Confirm says that the one of Details is a payment: it is not allowed but confirmed, by a code of its own. See [StepConfirm].
	Confirm bool `json:"confirm,omitempty"`
	// Backchannel is set where the application waits elsewhere for the answer: see package backchannel.
	Backchannel *Backchannel `json:"backchannel,omitempty"`
}

// Confirms reports whether the sign-in ends with the approval of a payment.
func (r *Requirement) Confirms() bool {
	return r.Confirm || r.Backchannel != nil && r.Backchannel.Transaction != uuid.Nil
}

// Backchannel is the question of an application whose own page is not in this browser.
type Backchannel struct {
	Request uuid.UUID `json:"request"` // in table backchannel_requests
	// Message is what the application shows as well, so that people see that it is the same request. May be empty.
	Message string `json:"message,omitempty"`
	// Transaction is the payment that it is about, which exists already. Zero: none.
	Transaction uuid.UUID `json:"transaction,omitzero"`
}

// Detail is one thing that an application asks leave for beside its scopes, and what a person reads of it.
type Detail struct {
	Type    string              `json:"type"`
	Content string              `json:"content"` // canonical JSON: what is allowed, byte for byte
	Lines   map[string][]string `json:"lines"`   // by locale
}

// RelyingParty is what pages and policy know of an application.
type RelyingParty struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	HomeURI    string `json:"home_uri,omitempty"`    // «Back to …»; may be empty
	Origin     string `json:"origin,omitempty"`      // origin or scheme of this request's redirect_uri, for CSP form-action
	FirstParty bool   `json:"first_party,omitempty"` // no consent asked
	Floor      Level  `json:"floor,omitempty"`       // least level of this application; NoLevel: the policy's
	Phone      string `json:"phone,omitempty"`       // where people reach the application's people; may be empty
	AppHash    string `json:"app_hash,omitempty"`    // of the Android app that reads the texts; "": a browser does
	// PaymentAccount says that people see or move money there: the tighter limits hold, of Regulation (EU) 2018/389 Art. 4(3).
	PaymentAccount bool `json:"payment_account,omitempty"`
	Own            bool `json:"own,omitempty"` // not an application: the subscriber's own account, see [Service.Account]
}

// SignIn is one attempt to sign in.
type SignIn struct {
	ID           uuid.UUID
	RelyingParty RelyingParty
	Requirement  Requirement
	Payload      []byte // the protocol's own request
	Locales      string // ui_locales as sent
	LoginHint    string
	Consented    []string // scopes allowed in this sign-in; nil: not asked yet
	Allowed      []string // scopes allowed to this application earlier
	CreatedAt    time.Time
	ExpiresAt    time.Time
	Now          time.Time // the database's time when this was read
	Session      Session
	Challenge    *factors.State // the latest challenge of this sign-in; nil: none
	Transaction  uuid.UUID      // that is to be confirmed; uuid.Nil: none was created
}

// NeedsConsent lists the scopes that a person still has to allow, and whether the page is due, as it is whenever there are details. It never is for the
// operator's own applications, whatever they ask: the operator answers for them.
func (s *SignIn) NeedsConsent() ([]string, bool) {
	if s.RelyingParty.FirstParty || s.Consented != nil || len(s.Requirement.Scopes) == 0 {
		return nil, false
	}
	if b := s.Requirement.Backchannel; b != nil && b.Transaction != uuid.Nil {
		return nil, false // the payment's own page is the one
	}
	if s.Requirement.Consent {
		return s.Requirement.Scopes, true
	}
	var missing []string
	for _, scope := range s.Requirement.Scopes {
		if !slices.Contains(s.Allowed, scope) {
			missing = append(missing, scope)
		}
	}
	return missing, len(missing) > 0 || len(s.Requirement.Details) > 0 && !s.Requirement.Confirms()
}

// EndedSQL is an SQL condition: the session of that id was ended, by whomever. The expression has to name its table.
func EndedSQL(session string) string {
	return "EXISTS (SELECT FROM sessions ended WHERE ended.id = " + session + " AND ended.ended_at IS NOT NULL)"
}

// DropConsents adds part `consents_dropped` to q: what people allowed the applications whose ids part from gives is forgotten.
func DropConsents(q *postgres.Query, from string) {
	q.With("consents_dropped", "DELETE FROM consents USING "+from+" dropped WHERE consents.relying_party = dropped.id")
}

// Errors that a page has to tell apart. Every other error is a fault of the system.
var (
	// ErrSignInOver: there is no such sign-in in this browser: expired, finished, another browser's, or never begun. Start again at the application.
	ErrSignInOver = errors.New("authn: sign-in is over")
	// ErrWrongPair: name and password do not belong together, or the account may not sign in. Which of these is never told.
	ErrWrongPair = errors.New("authn: wrong user name or password")
	// ErrNotThisStep: the step is not the one that is due. Load the sign-in and show that one.
	ErrNotThisStep = errors.New("authn: another step is due")
	// ErrOverloaded: too many passwords are being checked. Try again after RetryAfter seconds (503).
	ErrOverloaded = errors.New("authn: too many passwords being checked")
)

// RetryAfter is what a caller is told to wait after [ErrOverloaded].
const RetryAfter = 5 * time.Second

// LockedError says that passwords for this name, or from this address, are not looked at for a while.
type LockedError struct {
	Until  time.Time // see limits.Endless
	Source bool      // too many from this address, over all names
}

func (e *LockedError) Error() string { return "authn: too many wrong passwords" }

// Profile holds a subscriber's OpenID Connect Core 5.1 standard claims, by their names.
type Profile map[string]any

func decode[T any](data []byte) (v T, err error) {
	if len(data) == 0 {
		return v, nil
	}
	err = json.Unmarshal(data, &v)
	return v, err
}
