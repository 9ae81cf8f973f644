package authn

import (
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/factors"
)

// Step is what has to happen next.
type Step uint8

// Steps. The zero value is none of them.
const (
	StepPassword Step = iota + 1 // ask for user name and password
	StepFactor                   // ask for a second factor
	StepEnrol                    // the subscriber has no factor at all and may bind one: of a kind that Decision.Ruling takes, of Decision.Strength at least
	StepConsent                  // ask what the application may have
	StepConfirm                  // have the payment confirmed; its approval completes the sign-in, see [Completion]
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
	Detail  string  // what else the application is told of a failure, as error_description
	Ruling  Ruling  // what policy says of this sign-in

	// With StepDone and StepConfirm: what is true of this session, now.
	Level    Level
	Password *Event // the proof of knowledge that Level rests on
	Factor   *Event // the proof of possession; nil for a password alone
	Browser  *Event // in place of a proof of possession: that the browser is remembered. Level is that of the password
	AuthTime time.Time

	// With StepPassword: the same person is asked again, who is named.
	Again bool
	// With StepFactor: the least strength that will do, and whether a session that was good is being raised. Strength also comes with StepEnrol, and with
	// StepFail where it is a factor that the subscriber lacks: a person can be told.
	Strength Strength
	Raises   bool
	// With StepFactor: policy lets the person have this browser remembered, for sign-ins like this one.
	Rememberable bool
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
	if d.Browser != nil {
		amr = append(amr, d.Browser.AMR...)
	}
	if d.Password != nil && d.Factor != nil {
		amr = append(amr, "mfa") // two kinds: something known, something had
	}
	return amr
}

// Decide says whether session satisfies what is required, and if not, what is missing. It has no side effect and asks nobody;
// all times are the database's. signIn is the attempt that asks; consent says that a person still has to allow something.
func Decide(now time.Time, session *Session, signIn uuid.UUID, rp *RelyingParty, required *Requirement, consent bool, policy Policy) Decision {
	c := caseOf(session, rp, required)
	j := judgement{now: now, session: session, signIn: signIn, rp: rp, required: required, policy: policy, ruling: policy.Ruling(&c)}
	if rp.Own {
		j.ruling = j.ruling.own(session)
	}
	d := j.decide(consent)
	d.Ruling = j.ruling
	return d
}

// judgement is one call of [Decide].
type judgement struct {
	now      time.Time
	session  *Session
	signIn   uuid.UUID
	rp       *RelyingParty
	required *Requirement
	policy   Policy
	ruling   Ruling
}

func (j *judgement) decide(consent bool) Decision {
	session, required := j.session, j.required
	if required.Unmeetable {
		return Decision{Step: StepFail, Failure: Unmet}
	}
	if session.Recovery != uuid.Nil { // it repairs an account: to applications nobody is signed in
		if required.Silent {
			return Decision{Step: StepFail, Failure: LoginRequired}
		}
		return Decision{Step: StepPassword}
	}
	password := j.newest(Knowledge, Knowledge)
	other := required.Subject != "" && session.Subscriber != uuid.Nil && session.Subject != required.Subject

	if password == nil || session.Subscriber == uuid.Nil || other {
		switch {
		case required.Silent:
			return Decision{Step: StepFail, Failure: LoginRequired}
		case other && password != nil && password.SignInID == j.signIn:
			return Decision{Step: StepFail, Failure: LoginRequired} // somebody else signed in
		}
		return Decision{Step: StepPassword, Again: session.Subscriber != uuid.Nil && !other}
	}

	done := Decision{Step: StepDone, Level: PasswordLevel, Password: password, AuthTime: password.At}
	if target := j.target(); target > PasswordLevel {
		least := Restricted
		if target == UnrestrictedLevel {
			least = Unrestricted
		}
		factor := j.newest(least, Unrestricted)
		switch {
		case factor != nil:
			done.Factor = factor
			done.Level = factor.Strength.level()
			if factor.At.Before(done.AuthTime) {
				done.AuthTime = factor.At
			}
		case j.plain(least):
			if done.Browser = j.newest(Recognised, Recognised); done.Browser == nil {
				return j.missing(least)
			}
		default:
			return j.missing(least)
		}
	}
	if consent {
		if required.Silent {
			return Decision{Step: StepFail, Failure: ConsentRequired}
		}
		done.Step = StepConsent
		return done
	}
	if required.Confirms() {
		if required.Silent {
			return Decision{Step: StepFail, Failure: InteractionRequired}
		}
		done.Step = StepConfirm
	}
	return done
}

// level is what a proof of this strength makes of a password.
func (s Strength) level() Level {
	switch s {
	case Unrestricted:
		return UnrestrictedLevel
	case Restricted:
		return RestrictedLevel
	}
	return PasswordLevel
}

// offers is the strength of the subscriber's i-th authenticator, or 0 if policy does not take it here.
func (j *judgement) offers(i int) Strength {
	if i < len(j.session.Bound) && !j.ruling.Takes(j.session.Bound[i].Kind) {
		return 0
	}
	return j.session.Offers[i]
}

// missing says how a factor of the least strength can be had.
func (j *judgement) missing(least Strength) Decision {
	plain := j.plain(least)
	can, raises := false, j.raises() || j.spared() && !plain
	for i := range j.session.Offers {
		can = can || j.offers(i) >= least && !(raises && j.session.loginOnly(i))
	}
	switch {
	case j.required.Silent && can:
		return Decision{Step: StepFail, Failure: InteractionRequired}
	case can:
		return Decision{Step: StepFactor, Strength: least, Raises: raises, Rememberable: plain}
	case !j.required.Silent && len(j.session.Offers) == 0 && j.ruling.Enrol && j.bindable(least):
		if password := j.newest(Knowledge, Knowledge); j.policy.Fresh > 0 && j.now.Sub(password.At) >= j.policy.Fresh {
			return Decision{Step: StepPassword, Again: true} // what a change wants: see Service.Enrol
		}
		return Decision{Step: StepEnrol, Strength: least}
	}
	// Whoever has another factor is not led to bind one here: in its place it would be a way around it.
	return Decision{Step: StepFail, Failure: Unmet, Strength: least}
}

// bindable reports whether a factor is installed that would do.
func (j *judgement) bindable(least Strength) bool {
	for i := range j.policy.Installed {
		if kind := &j.policy.Installed[i]; kind.Strength >= least && !kind.NotFirst && j.ruling.Takes(kind.Name) {
			return true
		}
	}
	return false
}

// plain reports whether a remembered browser may stand in for the factor that a sign-in lacks: policy says so, and nobody asked for more. A floor of
// the operator's that any factor meets gives way to the operator's own remember=on; that of an application's registration never does, nor one with payment accounts, nor
// whatever a request says of levels and of time. What adds to a session, and what leads to the account, wants the factor itself.
func (j *judgement) plain(least Strength) bool {
	if !j.ruling.Remember || least > Restricted || j.rp.Own || j.rp.PaymentAccount || j.rp.Floor > PasswordLevel || j.required.Fresh || j.required.MaxAge >= 0 || j.required.Strongest || raised(j.session) {
		return false
	}
	for _, level := range j.required.Levels {
		if level > PasswordLevel {
			return false
		}
	}
	for i := range j.session.Offers {
		if j.offers(i) >= least {
			return true
		}
	}
	return false
}

// raises reports whether what is asked for adds to a session, or counts as much.
func (j *judgement) raises() bool { return j.required.Strongest || raised(j.session) }

// spared reports whether the session was good without a factor, because its browser is remembered: somebody signed in before.
func (j *judgement) spared() bool {
	for i := range j.session.Events {
		if e := &j.session.Events[i]; e.Kind == BrowserKind && e.SignInID != j.signIn {
			return true
		}
	}
	return false
}

// loginOnly reports whether the i-th authenticator adds nothing to a session that has a factor already.
func (s *Session) loginOnly(i int) bool { return i < len(s.LoginOnly) && s.LoginOnly[i] }

// adds reports whether a factor of that kind is bound, and good for more than signing in.
func (s *Session) adds(kind string) bool {
	for i := range s.Bound {
		if s.Bound[i].Kind == kind && !s.loginOnly(i) {
			return true
		}
	}
	return false
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

// target is the level to reach. Of those that were asked for it is the highest that the subscriber can reach, or without a page, that the session has
// reached; policy may raise it, never lower it. Whoever has a factor is always asked for one: a password alone is worth nothing then.
func (j *judgement) target() Level {
	target := j.ruling.Floor
	if len(j.session.Offers) > 0 {
		target = max(target, RestrictedLevel)
	}
	if j.required.Strongest {
		for i := range j.session.Offers {
			if !j.session.loginOnly(i) {
				target = max(target, j.offers(i).level())
			}
		}
	}
	if len(j.required.Levels) == 0 {
		return target
	}
	best := PasswordLevel
	if j.required.Silent {
		if factor := j.strongest(); factor != nil {
			best = factor.Strength.level()
		}
		if asked, reachable := choose(j.required.Levels, best); reachable {
			return max(target, asked)
		}
	}
	for i := range j.session.Offers {
		best = max(best, j.offers(i).level())
	}
	asked, _ := choose(j.required.Levels, best)
	return max(target, asked)
}

// choose gives the highest level up to best; if there is none the lowest, so that what is missing is told truthfully.
func choose(levels []Level, best Level) (asked Level, reachable bool) {
	for _, level := range levels {
		switch can := level <= best; {
		case can && (!reachable || level > asked), !can && !reachable && (asked == NoLevel || level < asked):
			asked, reachable = level, reachable || can
		}
	}
	return asked, reachable
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

// Kinds lists the factors that are installed.
func (s *Service) Kinds() []Kind { return Kinds(s.Ledger.Factors()) }

// Kinds lists factors by name.
func Kinds(installed []factors.Factor) (kinds []Kind) {
	for _, f := range installed {
		_, begins := f.(factors.Provisioner)
		_, typed := f.(factors.Numbered)
		kinds = append(kinds, Kind{Name: f.Kind(), Strength: strength(f), NotFirst: !begins && !typed || !factors.Serves(f, factors.StepUp)})
	}
	slices.SortFunc(kinds, func(a, b Kind) int { return strings.Compare(a.Name, b.Name) })
	return kinds
}

// newest finds the newest event of at least and at most the given strengths that counts.
func (j *judgement) newest(least, most Strength) (found *Event) {
	for i := range j.session.Events {
		if e := &j.session.Events[i]; e.Strength >= least && e.Strength <= most && j.counts(e) && (found == nil || e.At.After(found.At)) {
			found = e
		}
	}
	return found
}

// strongest finds the strongest proof of possession that counts.
func (j *judgement) strongest() *Event {
	if e := j.newest(Unrestricted, Unrestricted); e != nil {
		return e
	}
	return j.newest(Restricted, Restricted)
}

// counts reports whether an event is young enough, and of a kind that policy takes.
func (j *judgement) counts(e *Event) bool {
	age := j.now.Sub(e.At)
	switch {
	case e.Strength > Knowledge && !j.ruling.Takes(e.Kind), e.Strength > Knowledge && j.required.Strongest && !j.session.adds(e.Kind):
		return false
	case j.policy.MaxAge > 0 && age > j.policy.MaxAge:
		return false
	case e.SignInID == j.signIn: // max_age asks for a new proof, not for a fast one
		return true
	}
	return !j.required.Fresh && (j.required.MaxAge < 0 || age <= time.Duration(j.required.MaxAge)*time.Second)
}
