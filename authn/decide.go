package authn

import (
	"time"

	"github.com/google/uuid"
)

// Policy is what the operator demands whatever an application asks.
type Policy struct {
	// Floor is the least level of every application that names none itself. Default [RestrictedLevel].
	Floor Level
	// MaxAge of any proof, whatever its session has been through since. Zero: no bound.
	MaxAge time.Duration
}

// Step is what has to happen next.
type Step uint8

// Steps. The zero value is none of them.
const (
	StepPassword Step = iota + 1 // ask for user name and password
	StepFactor                   // ask for a second factor
	StepEnrol                    // the subscriber has no factor that could do: bind one
	StepConsent                  // ask what the application may have
	StepDone                     // answer the application
	StepFail                     // answer the application with Decision.Failure
)

// Failure is why an application gets an error, in the words of OpenID Connect Core 3.1.2.6.
type Failure string

// Failures.
const (
	LoginRequired       Failure = "login_required"
	InteractionRequired Failure = "interaction_required"
	ConsentRequired     Failure = "consent_required"
	AccessDenied        Failure = "access_denied"
	Unmet               Failure = "unmet_authentication_requirements" // OpenID Connect Core Unmet Authentication Requirements 1.0
)

// Decision is the answer of [Decide].
type Decision struct {
	Step    Step
	Failure Failure // with StepFail

	// With StepDone: what is true of this session, now.
	Level    Level
	Password *Event // the proof of knowledge that Level rests on
	Factor   *Event // the proof of possession; nil for a password alone
	AuthTime time.Time

	// With StepPassword: the same person is asked again, who is named.
	Again bool
	// With StepFactor: the least strength that will do, and whether a session that was good is being raised.
	Strength Strength
	Raises   bool
}

// AMR lists the methods of RFC 8176 section 2 that the decision rests on.
func (d *Decision) AMR() []string {
	var amr []string
	if d.Password != nil {
		amr = append(amr, d.Password.AMR...)
	}
	if d.Factor != nil {
		amr = append(amr, d.Factor.AMR...)
	}
	if d.Password != nil && d.Factor != nil {
		amr = append(amr, "mfa") // two kinds: something known, something had
	}
	return amr
}

// Decide says whether session satisfies what is required, and if not, what is missing. It has no side effect and asks nobody;
// all times are the database's. signIn is the attempt that asks; consent says that a person still has to allow something.
func Decide(now time.Time, session *Session, signIn uuid.UUID, rp *RelyingParty, required *Requirement, consent bool, policy Policy) Decision {
	if required.Unmeetable {
		return Decision{Step: StepFail, Failure: Unmet}
	}
	target := targetLevel(session, rp, required, policy)
	password := newest(session.Events, now, signIn, required, policy, Knowledge, Knowledge)
	other := required.Subject != "" && session.Subscriber != uuid.Nil && session.Subject != required.Subject

	if password == nil || session.Subscriber == uuid.Nil || other {
		switch {
		case required.Silent:
			return Decision{Step: StepFail, Failure: LoginRequired}
		case other && password != nil && password.SignInID == signIn:
			return Decision{Step: StepFail, Failure: LoginRequired} // somebody else signed in
		}
		return Decision{Step: StepPassword, Again: session.Subscriber != uuid.Nil && !other}
	}

	done := Decision{Step: StepDone, Level: PasswordLevel, Password: password, AuthTime: password.At}
	if target > PasswordLevel {
		least := Restricted
		if target == UnrestrictedLevel {
			least = Unrestricted
		}
		factor := newest(session.Events, now, signIn, required, policy, least, Unrestricted)
		if factor == nil {
			return missingFactor(session, required, least)
		}
		done.Factor = factor
		done.Level = RestrictedLevel
		if factor.Strength == Unrestricted {
			done.Level = UnrestrictedLevel
		}
		if factor.At.Before(done.AuthTime) {
			done.AuthTime = factor.At
		}
	}
	if consent {
		if required.Silent {
			return Decision{Step: StepFail, Failure: ConsentRequired}
		}
		done.Step = StepConsent
	}
	return done
}

// missingFactor says how a factor of the least strength can be had.
func missingFactor(session *Session, required *Requirement, least Strength) Decision {
	can := false
	for _, strength := range session.Offers {
		can = can || strength >= least
	}
	switch {
	case required.Silent && can:
		return Decision{Step: StepFail, Failure: InteractionRequired}
	case can:
		return Decision{Step: StepFactor, Strength: least, Raises: raised(session)}
	case len(required.Levels) > 0 || required.Silent:
		return Decision{Step: StepFail, Failure: Unmet}
	default:
		return Decision{Step: StepEnrol, Strength: least}
	}
}

// raised reports whether the session had a factor already: what is asked now adds to it.
func raised(session *Session) bool {
	for i := range session.Events {
		if session.Events[i].Strength > Knowledge {
			return true
		}
	}
	return false
}

// targetLevel is the level to reach. Of those that were asked for it is the highest that the subscriber can reach; policy may raise it, never
// lower it. Whoever has a factor is always asked for one: a password alone is worth nothing then.
func targetLevel(session *Session, rp *RelyingParty, required *Requirement, policy Policy) Level {
	best := NoLevel
	for _, strength := range session.Offers {
		switch strength {
		case Unrestricted:
			best = max(best, UnrestrictedLevel)
		case Restricted:
			best = max(best, RestrictedLevel)
		}
	}
	target := policy.Floor
	if rp.Floor != NoLevel {
		target = rp.Floor
	}
	if best > NoLevel {
		target = max(target, RestrictedLevel)
	}
	if len(required.Levels) > 0 {
		// The highest that this subscriber can reach; if none, the lowest, so that what is missing is told truthfully.
		asked, reachable := NoLevel, false
		for _, level := range required.Levels {
			switch can := level <= max(best, PasswordLevel); {
			case can && (!reachable || level > asked), !can && !reachable && (asked == NoLevel || level < asked):
				asked, reachable = level, reachable || can
			}
		}
		target = max(target, asked)
	}
	return target
}

// Reach is the highest level that anybody can reach with the factors that are installed.
func (s *Service) Reach() Level {
	most := PasswordLevel
	for _, f := range s.Ledger.Factors() {
		if strength(f) == Unrestricted {
			return UnrestrictedLevel
		}
		most = RestrictedLevel
	}
	return most
}

// newest finds the newest event of at least and at most the given strengths that is young enough.
func newest(events []Event, now time.Time, signIn uuid.UUID, required *Requirement, policy Policy, least, most Strength) *Event {
	var found *Event
	for i := range events {
		e := &events[i]
		if e.Strength < least || e.Strength > most {
			continue
		}
		if policy.MaxAge > 0 && now.Sub(e.At) > policy.MaxAge {
			continue
		}
		if required.Fresh && e.SignInID != signIn {
			continue
		}
		// A proof given in this very sign-in is young enough: max_age asks for a new one, not for a fast one.
		if required.MaxAge >= 0 && e.SignInID != signIn && now.Sub(e.At) > time.Duration(required.MaxAge)*time.Second {
			continue
		}
		if found == nil || e.At.After(found.At) {
			found = e
		}
	}
	return found
}
