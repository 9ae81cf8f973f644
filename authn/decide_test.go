package authn

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
)

var (
	noon   = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	alice  = uuid.MustParse("00000000-0000-4000-8000-00000000a11c")
	bob    = uuid.MustParse("00000000-0000-4000-8000-000000000b0b")
	this   = uuid.MustParse("00000000-0000-4000-8000-000000000001")
	former = uuid.MustParse("00000000-0000-4000-8000-000000000002")
)

func pwd(at time.Time, in uuid.UUID) Event {
	return Event{At: at, Strength: Knowledge, AMR: []string{"pwd"}, SignInID: in}
}

func text(at time.Time, in uuid.UUID) Event {
	return Event{At: at, Strength: Restricted, Kind: "sms", AMR: []string{"sms"}, SignInID: in}
}

func app(at time.Time, in uuid.UUID) Event {
	return Event{At: at, Strength: Unrestricted, Kind: "app", AMR: []string{"otp"}, SignInID: in}
}

var installed = []Kind{{Name: "app", Strength: Unrestricted}, {Name: "sms", Strength: Restricted}}

func TestDecideEnrolsFresh(t *testing.T) { // LIM-9: whoever is led to bind a factor has just given the password
	t.Parallel()
	policy := Policy{Floor: RestrictedLevel, Enrol: true, Fresh: 10 * time.Minute, Installed: installed}
	for age, want := range map[time.Duration]Step{10*time.Minute - time.Second: StepEnrol, 10 * time.Minute: StepPassword, time.Hour: StepPassword} {
		session := &Session{Subscriber: alice, Events: []Event{pwd(noon.Add(-age), this)}}
		d := Decide(noon, session, this, &RelyingParty{}, &Requirement{MaxAge: -1}, false, policy)
		if d.Step != want || d.Again != (want == StepPassword) {
			t.Errorf("a password %v old: %+v, want step %d", age, d, want)
		}
	}
	policy.Installed = []Kind{{Name: "paper", Strength: Restricted, NotFirst: true}}
	session := &Session{Subscriber: alice, Events: []Event{pwd(noon, this)}}
	if d := Decide(noon, session, this, &RelyingParty{}, &Requirement{MaxAge: -1}, false, policy); d.Step != StepFail || d.Failure != Unmet {
		t.Errorf("nothing that one begins with: %+v", d)
	}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	minutes := func(n int) time.Time { return noon.Add(-time.Duration(n) * time.Minute) }
	nothing := Requirement{MaxAge: -1}
	asks := func(levels ...Level) Requirement { return Requirement{MaxAge: -1, Levels: levels} }
	sms, both := []Strength{Restricted}, []Strength{Restricted, Unrestricted}
	silently := func(levels ...Level) Requirement { return Requirement{MaxAge: -1, Silent: true, Levels: levels} }
	type want struct {
		step     Step
		failure  Failure
		level    Level
		amr      []string
		authTime time.Time
		again    bool
		raises   bool
		strength Strength
	}
	full := want{step: StepDone, level: RestrictedLevel, amr: []string{"pwd", "sms", "mfa"}, authTime: minutes(10)}
	tests := []struct {
		name     string
		who      uuid.UUID
		events   []Event
		offers   []Strength
		floor    Level
		required Requirement
		consent  bool
		want     want
	}{
		{name: "nobody", required: nothing, want: want{step: StepPassword}},
		{name: "nobody, silent", required: Requirement{MaxAge: -1, Silent: true}, want: want{step: StepFail, failure: LoginRequired}},
		{name: "password only, has a phone", who: alice, events: []Event{pwd(minutes(1), this)}, offers: sms, required: nothing,
			want: want{step: StepFactor, strength: Restricted}},
		{name: "AZ-13 password only, silent", who: alice, events: []Event{pwd(minutes(1), this)}, offers: sms, required: Requirement{MaxAge: -1, Silent: true},
			want: want{step: StepFail, failure: InteractionRequired}},
		{name: "password only, has a phone, application asks for a password only", who: alice, events: []Event{pwd(minutes(1), this)}, offers: sms,
			floor: PasswordLevel, required: asks(PasswordLevel), want: want{step: StepFactor, strength: Restricted}},
		{name: "password only, has nothing, application takes that", who: alice, events: []Event{pwd(minutes(1), this)}, floor: PasswordLevel, required: nothing,
			want: want{step: StepDone, level: PasswordLevel, amr: []string{"pwd"}, authTime: minutes(1)}},
		{name: "password only, has nothing", who: alice, events: []Event{pwd(minutes(1), this)}, required: nothing, want: want{step: StepEnrol, strength: Restricted}},
		{name: "both proofs", who: alice, events: []Event{pwd(minutes(10), former), text(minutes(9), former)}, offers: sms, required: nothing, want: full},
		{name: "SS-13 silent sign-on says when it really happened", who: alice, events: []Event{pwd(minutes(10), former), text(minutes(9), former)}, offers: sms,
			required: Requirement{MaxAge: -1, Silent: true}, want: full},
		{name: "auth_time is the oldest proof", who: alice, events: []Event{text(minutes(10), former), pwd(minutes(3), former)}, offers: sms, required: nothing, want: full},
		{name: "AZ-14 asks for more than the session has, silent", who: alice, events: []Event{pwd(minutes(10), former), text(minutes(9), former)}, offers: both,
			required: Requirement{MaxAge: -1, Silent: true, Levels: []Level{UnrestrictedLevel}}, want: want{step: StepFail, failure: InteractionRequired}},
		{name: "step-up asks for what is missing only", who: alice, events: []Event{pwd(minutes(10), former), text(minutes(9), former)}, offers: both,
			required: asks(UnrestrictedLevel), want: want{step: StepFactor, strength: Unrestricted, raises: true}},
		{name: "TX-14 asks for more than the person can do", who: alice, events: []Event{pwd(minutes(10), former), text(minutes(9), former)}, offers: sms,
			required: asks(UnrestrictedLevel), want: want{step: StepFail, failure: Unmet, strength: Unrestricted}},
		{name: "TX-14 asks for more than the person can do, silent", who: alice, events: []Event{pwd(minutes(10), former), text(minutes(9), former)}, offers: sms,
			required: silently(UnrestrictedLevel), want: want{step: StepFail, failure: Unmet, strength: Unrestricted}},
		{name: "TX-14 has nothing yet, and could get there", who: alice, events: []Event{pwd(minutes(1), this)}, required: asks(UnrestrictedLevel),
			want: want{step: StepEnrol, strength: Unrestricted}},
		{name: "TX-14 has nothing yet, silent", who: alice, events: []Event{pwd(minutes(1), this)}, required: silently(RestrictedLevel),
			want: want{step: StepFail, failure: Unmet, strength: Restricted}},
		{name: "EN-7 whoever has a factor is not led to bind another one", who: alice, events: []Event{pwd(minutes(1), this)}, offers: sms, required: asks(UnrestrictedLevel),
			want: want{step: StepFail, failure: Unmet, strength: Unrestricted}},
		{name: "silently, the highest of several that the session has", who: alice, events: []Event{pwd(minutes(10), former), text(minutes(9), former)}, offers: both,
			required: silently(UnrestrictedLevel, RestrictedLevel), want: full},
		{name: "silently, none of several that the session has", who: alice, events: []Event{pwd(minutes(10), former)}, offers: both,
			required: silently(UnrestrictedLevel, RestrictedLevel), want: want{step: StepFail, failure: InteractionRequired}},
		{name: "AZ-13 silently, a password alone is not enough even where it was asked for", who: alice, events: []Event{pwd(minutes(10), former)}, offers: sms,
			required: silently(PasswordLevel), want: want{step: StepFail, failure: InteractionRequired}},
		{name: "TX-13 max_age=0 asks for everything anew", who: alice, events: []Event{pwd(minutes(1), former), text(minutes(1), former)}, offers: sms,
			required: Requirement{MaxAge: 0, Levels: []Level{RestrictedLevel}}, want: want{step: StepPassword, again: true}},
		{name: "TX-13 a text does not do for an app, however fresh", who: alice, events: []Event{pwd(minutes(1), this), text(minutes(0), this)}, offers: both,
			required: asks(UnrestrictedLevel), want: want{step: StepFactor, strength: Unrestricted, raises: true}},
		{name: "the highest reachable of several", who: alice, events: []Event{pwd(minutes(10), former), text(minutes(9), former)}, offers: sms,
			required: asks(UnrestrictedLevel, RestrictedLevel), want: full},
		{name: "the highest of several is asked for", who: alice, events: []Event{pwd(minutes(10), former), text(minutes(9), former)}, offers: both,
			required: asks(RestrictedLevel, UnrestrictedLevel), want: want{step: StepFactor, strength: Unrestricted, raises: true}},
		{name: "an app does for a text", who: alice, events: []Event{pwd(minutes(10), former), app(minutes(9), former)}, offers: both, required: asks(RestrictedLevel),
			want: want{step: StepDone, level: UnrestrictedLevel, amr: []string{"pwd", "otp", "mfa"}, authTime: minutes(10)}},
		{name: "essential value that nobody knows", who: alice, events: []Event{pwd(minutes(10), former), text(minutes(9), former)}, offers: sms,
			required: Requirement{MaxAge: -1, Unmeetable: true}, want: want{step: StepFail, failure: Unmet}},
		{name: "AZ-16 too old", who: alice, events: []Event{pwd(minutes(10), former), text(minutes(9), former)}, offers: sms, required: Requirement{MaxAge: 300},
			want: want{step: StepPassword, again: true}},
		{name: "AZ-16 young enough", who: alice, events: []Event{pwd(minutes(10), former), text(minutes(9), former)}, offers: sms, required: Requirement{MaxAge: 600}, want: full},
		{name: "max_age=0 takes what was given in this sign-in", who: alice, events: []Event{pwd(minutes(10), this), text(minutes(9), this)}, offers: sms,
			required: Requirement{MaxAge: 0}, want: full},
		{name: "max_age: only the factor is too old", who: alice, events: []Event{text(minutes(20), former), pwd(minutes(10), former)}, offers: sms,
			required: Requirement{MaxAge: 900}, want: want{step: StepFactor, strength: Restricted, raises: true}},
		{name: "prompt=login", who: alice, events: []Event{pwd(minutes(10), former), text(minutes(9), former)}, offers: sms, required: Requirement{MaxAge: -1, Fresh: true},
			want: want{step: StepPassword, again: true}},
		{name: "TX-13 prompt=login, an earlier code does not do", who: alice, events: []Event{text(minutes(9), former), pwd(minutes(1), this)}, offers: sms,
			required: Requirement{MaxAge: -1, Fresh: true}, want: want{step: StepFactor, strength: Restricted, raises: true}},
		{name: "older than policy allows", who: alice, events: []Event{pwd(minutes(13*60), former), text(minutes(13*60), former)}, offers: sms, required: nothing,
			want: want{step: StepPassword, again: true}},
		{name: "AZ-17 somebody else is signed in, silent", who: bob, events: []Event{pwd(minutes(10), former), text(minutes(9), former)}, offers: sms,
			required: Requirement{MaxAge: -1, Silent: true, Subject: alice.String()}, want: want{step: StepFail, failure: LoginRequired}},
		{name: "somebody else is signed in", who: bob, events: []Event{pwd(minutes(10), former), text(minutes(9), former)}, offers: sms,
			required: Requirement{MaxAge: -1, Subject: alice.String()}, want: want{step: StepPassword}},
		{name: "somebody else signed in though alice was expected", who: bob, events: []Event{pwd(minutes(1), this)}, offers: sms,
			required: Requirement{MaxAge: -1, Subject: alice.String()}, want: want{step: StepFail, failure: LoginRequired}},
		{name: "consent is missing", who: alice, events: []Event{pwd(minutes(10), former), text(minutes(9), former)}, offers: sms, required: nothing, consent: true,
			want: want{step: StepConsent, level: RestrictedLevel, amr: []string{"pwd", "sms", "mfa"}, authTime: minutes(10)}},
		{name: "consent is missing, silent", who: alice, events: []Event{pwd(minutes(10), former), text(minutes(9), former)}, offers: sms,
			required: Requirement{MaxAge: -1, Silent: true}, consent: true, want: want{step: StepFail, failure: ConsentRequired}},
		{name: "consent never comes before the factor", who: alice, events: []Event{pwd(minutes(1), this)}, offers: sms, required: nothing, consent: true,
			want: want{step: StepFactor, strength: Restricted}},
		{name: "a factor without a password", who: alice, events: []Event{text(minutes(1), this)}, offers: sms, required: nothing, want: want{step: StepPassword, again: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			session := &Session{Subscriber: tt.who, Subject: tt.who.String(), Events: tt.events, Offers: tt.offers}
			got := Decide(noon, session, this, &RelyingParty{Floor: tt.floor}, &tt.required, tt.consent,
				Policy{Floor: RestrictedLevel, MaxAge: 12 * time.Hour, Enrol: true, Installed: installed})
			if got.Step != tt.want.step || got.Failure != tt.want.failure || got.Level != tt.want.level || !slices.Equal(got.AMR(), tt.want.amr) ||
				!got.AuthTime.Equal(tt.want.authTime) || got.Again != tt.want.again || got.Raises != tt.want.raises || got.Strength != tt.want.strength {
				t.Errorf("Decide = %+v with amr %v\nwant %+v", got, got.AMR(), tt.want)
			}
		})
	}
}

func BenchmarkDecideSatisfied(b *testing.B) {
	session := &Session{Subscriber: alice, Events: []Event{pwd(noon, former), text(noon, former)}, Offers: []Strength{Restricted}}
	rp, required, policy := &RelyingParty{}, &Requirement{MaxAge: -1, Levels: []Level{RestrictedLevel}}, Policy{Floor: RestrictedLevel, MaxAge: 12 * time.Hour}
	b.ReportAllocs()
	for b.Loop() {
		if d := Decide(noon, session, this, rp, required, false, policy); d.Step != StepDone {
			b.Fatal(d)
		}
	}
}

func TestNeedsConsent(t *testing.T) { // OAU-12
	t.Parallel()
	tests := []struct {
		name       string
		firstParty bool
		prompt     bool
		allowed    []string // earlier
		consented  []string // in this sign-in
		want       []string
	}{
		{name: "a third party at first use", want: []string{"openid"}},
		{name: "a third party that was allowed everything", allowed: []string{"openid"}},
		{name: "a third party that was allowed something else", allowed: []string{"email"}, want: []string{"openid"}},
		{name: "a third party asks for the page", prompt: true, allowed: []string{"openid"}, want: []string{"openid"}},
		{name: "a third party asks for the page, which was shown", prompt: true, consented: []string{"openid"}},
		{name: "the operator's own at first use", firstParty: true},
		{name: "the operator's own asks for the page", firstParty: true, prompt: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := &SignIn{RelyingParty: RelyingParty{FirstParty: tt.firstParty}, Requirement: Requirement{Consent: tt.prompt, Scopes: []string{"openid"}},
				Allowed: tt.allowed, Consented: tt.consented}
			if missing, due := in.NeedsConsent(); !slices.Equal(missing, tt.want) || due != (tt.want != nil) {
				t.Errorf("NeedsConsent = %v, %v; want %v", missing, due, tt.want)
			}
		})
	}
}
