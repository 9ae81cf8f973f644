package authn

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Question is a sign-in that nobody has begun: what would happen?
type Question struct {
	RelyingParty RelyingParty
	Requirement  Requirement
	Source       netip.Addr // the zero value: somewhere that no rule names
}

// Explanation answers a [Question] for a browser that nobody is signed in at, whose person answers everything right.
type Explanation struct {
	Ruling Ruling
	Path   []Verdict // one for each rule of the policy, in order
	Steps  []Asked
	End    Decision // done, enrolment or failure
}

// Asked is one step of a sign-in.
type Asked struct {
	Step Step
	// With StepFactor: what the person can choose from. The first is asked unless they choose.
	Choices []factors.Authenticator
}

// Explain says what a sign-in of u would be like, by the very functions that decide one: it asks [Service.Decide] before every step, and answers as a person
// would. Nothing is stored.
func (s *Service) Explain(ctx context.Context, u *Subscriber, question Question) (*Explanation, error) {
	q := new(postgres.Query)
	q.Finally(fmt.Sprintf("SELECT wall() AS now, (SELECT scopes FROM consents WHERE subscriber_id = %s AND relying_party = %s) AS allowed",
		q.Bind(u.ID)+"::uuid", q.Bind(question.RelyingParty.ID)+"::text"))
	var row signInRow
	if err := s.DB.Get(ctx, &row, q); err != nil {
		return nil, fmt.Errorf("explain: %w", err)
	}
	in := &SignIn{ID: uuid.New(), Now: row.Now, Allowed: row.Allowed, RelyingParty: question.RelyingParty, Requirement: question.Requirement, Session: Session{Source: question.Source}}
	e := new(Explanation)
	for e.End = s.Decide(in); e.End.Step != StepDone && e.End.Step != StepEnrol && e.End.Step != StepFail; e.End = s.Decide(in) {
		asked := Asked{Step: e.End.Step}
		switch e.End.Step {
		case StepPassword:
			if in.Session.Subscriber != uuid.Nil {
				return nil, errors.New("explain: a right password was not enough")
			}
			in.Session.Subscriber, in.Session.Subject, in.Session.Username, in.Session.Groups = u.ID, u.Subject, u.Username, u.Groups
			in.Session.Events = append(in.Session.Events, Event{At: in.Now, Strength: Knowledge, AMR: []string{"pwd"}, SignInID: in.ID})
			s.offer(in, u.Bound)
		case StepFactor:
			a, err := s.pick(&in.Session, e.End, uuid.Nil)
			if err != nil {
				return nil, fmt.Errorf("explain: %w", err)
			}
			factor, _ := s.Ledger.Factor(a.Kind)
			in.Session.Events = append(in.Session.Events, Event{At: in.Now, Strength: strength(factor), Kind: a.Kind, AMR: factor.AMR(), AuthenticatorID: a.ID, SignInID: in.ID})
			for _, way := range s.Ways(&in.Session, e.End) {
				asked.Choices = append(asked.Choices, way.Authenticator)
			}
		case StepConsent:
			in.Consented = slices.Clone(in.Requirement.Scopes)
		}
		if e.Steps = append(e.Steps, asked); len(e.Steps) > 8 {
			return nil, errors.New("explain: the steps come to no end")
		}
	}
	c := caseOf(&in.Session, &in.RelyingParty, &in.Requirement)
	e.Ruling, e.Path = s.Config.Policy.Explain(&c)
	return e, nil
}
