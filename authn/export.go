package authn

import (
	"time"
)

// Export is what is kept about a person, but for secrets, as JSON for them and for other programs.
type Export struct {
	ExportedAt   time.Time             `json:"exported_at"`
	Subject      string                `json:"sub"`
	Username     string                `json:"username"`
	Profile      Profile               `json:"profile"`
	Groups       []string              `json:"groups"`
	CreatedAt    time.Time             `json:"created_at"`
	DisabledAt   *time.Time            `json:"disabled_at,omitempty"`
	HasPassword  bool                  `json:"has_password"`
	Factors      []ExportedFactor      `json:"factors"`
	Browsers     []ExportedSeat        `json:"browsers"`
	Sessions     []ExportedSeat        `json:"sessions"`
	Applications []ExportedApplication `json:"applications"`
	Activity     []ExportedActivity    `json:"activity"`
}

// ExportedFactor is an authenticator, without what it knows.
type ExportedFactor struct {
	ID         string     `json:"id"`
	Kind       string     `json:"kind"`
	Name       string     `json:"name,omitempty"`
	Hint       string     `json:"hint,omitempty"`
	AddedAt    time.Time  `json:"added_at"`
	LastUsedAt *time.Time `json:"last_used_at,omitempty"`
	Left       *int       `json:"left,omitempty"`
}

// ExportedSeat is a session, or a remembered browser.
type ExportedSeat struct {
	ID         string     `json:"id"`
	UserAgent  string     `json:"user_agent,omitempty"`
	CreatedAt  time.Time  `json:"created_at"`
	LastUsedAt time.Time  `json:"last_used_at"`
	ExpiresAt  *time.Time `json:"expires_at,omitempty"`
}

// ExportedApplication is an application and what it has.
type ExportedApplication struct {
	ID     string    `json:"client_id"`
	Name   string    `json:"client_name,omitempty"`
	Scopes []string  `json:"scopes"`
	Since  time.Time `json:"since"`
}

// ExportedActivity is a record about the person.
type ExportedActivity struct {
	At      time.Time `json:"at"`
	Event   string    `json:"event"`
	Outcome string    `json:"outcome"`
	Reason  string    `json:"reason,omitempty"`
	Actor   string    `json:"actor,omitempty"`
	Client  string    `json:"client_id,omitempty"`
	Source  string    `json:"source,omitempty"`
}

// NewExport makes one of what [Service.Export] gave.
func NewExport(a *Account, u *Subscriber) *Export {
	e := &Export{ExportedAt: a.Now.UTC(), Subject: u.Subject, Username: u.Username, Profile: u.Profile, Groups: append([]string{}, u.Groups...), CreatedAt: u.CreatedAt.UTC(),
		DisabledAt: u.DisabledAt, HasPassword: u.HasSecret, Factors: []ExportedFactor{}, Browsers: []ExportedSeat{}, Sessions: []ExportedSeat{},
		Applications: []ExportedApplication{}, Activity: []ExportedActivity{}}
	for _, b := range u.Bound {
		f := ExportedFactor{ID: b.ID.String(), Kind: b.Kind, Name: b.Name, Hint: b.Hint, AddedAt: b.BoundAt.UTC(), Left: b.Left}
		if !b.LastUsedAt.IsZero() {
			used := b.LastUsedAt.UTC()
			f.LastUsedAt = &used
		}
		e.Factors = append(e.Factors, f)
	}
	for _, b := range a.Browsers {
		end := b.ExpiresAt.UTC()
		e.Browsers = append(e.Browsers, ExportedSeat{b.ID.String(), b.Agent, b.CreatedAt.UTC(), b.LastUsedAt.UTC(), &end})
	}
	for _, s := range a.Sessions {
		e.Sessions = append(e.Sessions, ExportedSeat{s.ID.String(), s.Agent, s.CreatedAt.UTC(), s.LastUsedAt.UTC(), nil})
	}
	for _, g := range a.Given {
		e.Applications = append(e.Applications, ExportedApplication{g.Application, g.Name, append([]string{}, g.Scopes...), g.Since.UTC()})
	}
	for i := range a.Activity {
		r := &a.Activity[i]
		e.Activity = append(e.Activity, ExportedActivity{r.At.UTC(), r.Event, r.Outcome, r.Reason, r.Actor, r.Client.V, r.Source})
	}
	return e
}
