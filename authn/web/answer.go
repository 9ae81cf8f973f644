package web

import (
	"errors"
	"html/template"
	"net/http"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/limits"
)

// ---------------------------------------------------------------- P3, P4 and their like: an answer that nobody sends

// answerPages are the names of the pages on which factors ask for what a person has at hand.
func (h *Handler) answerPages() map[string]bool {
	names := map[string]bool{}
	for _, f := range h.SignIns.Ledger.Factors() {
		if name := factors.PageOf(f).Name; name != factors.MessagePage {
			names[name] = true
		}
	}
	return names
}

// answerPage is the page of that name. What it says are the texts of the group of that name.
type answerPage struct {
	*Handler
	name string
}

// answerBody is what the page shows besides its frame.
type answerBody struct {
	Page   factors.Page
	Intro  template.HTML
	Label  template.HTML
	Hint   template.HTML
	Closed bool // no answer is looked at: something else has to be done first
	Again  bool // asking anew is what has to be done
	// This browser can be remembered, and is to be.
	Remember template.HTML
	Chosen   bool
}

// due loads the sign-in of a request and makes sure that this page is the one that is due; otherwise it leads to the one that is and gives nil.
func (h answerPage) due(w http.ResponseWriter, r *http.Request, v visit) (*authn.Progress, authn.Way, error) {
	p, err := h.SignIns.Load(r.Context(), v.cookie, v.flow)
	if err != nil {
		return nil, authn.Way{}, err
	}
	if v.form != nil && !h.proven(v.form, p.SignIn.Session.ID, v.flow, h.name) {
		return nil, authn.Way{}, errProof
	}
	if way, ok := h.here(p, h.name); ok {
		return p, way, nil
	}
	return nil, authn.Way{}, h.Next(w, r, p, v.cookie)
}

// here reports whether the page of that name is due, and for what.
func (h *Handler) here(p *authn.Progress, name string) (authn.Way, bool) {
	if p.Decision.Step != authn.StepFactor {
		return authn.Way{}, false
	}
	way, err := h.SignIns.Due(p)
	return way, err == nil && way.Page.Name == name
}

func (h answerPage) get(w http.ResponseWriter, r *http.Request) error {
	v, err := h.open(r)
	if err != nil {
		return err
	}
	p, way, err := h.due(w, r, v)
	if p == nil {
		return err
	}
	return h.show(w, r, p, way, http.StatusOK, "")
}

// show renders the page as the challenge stands, with what is wrong about the last answer.
func (h answerPage) show(w http.ResponseWriter, r *http.Request, p *authn.Progress, way authn.Way, status int, wrong template.HTML) error {
	in, f := p.SignIn, h.page(r, p.SignIn, h.name)
	say := func(name string) template.HTML { return f.say.of(h.name, name, values{"Service": h.Service}) }
	f.Title = say("title")
	body := answerBody{Page: way.Page, Intro: say("intro"), Label: say("label"), Hint: say("hint"), Remember: h.remembering(f.say, p), Chosen: p.Remember}
	problem, again := h.state(f.say, in)
	body.Closed, body.Again = problem != "", again
	switch {
	case problem != "":
		f.Errors = []fault{{"code", problem}}
		if c := in.Challenge; c.BlockedUntil != nil {
			f.retryAfter = retry(in.Now, *c.BlockedUntil)
		}
	case wrong != "":
		f.Errors = []fault{{"code", wrong}}
	}
	switch c := in.Challenge; {
	case body.Closed:
	case way.Left != nil && *way.Left <= 2:
		f.Notice = f.say.of(h.name, "left", values{"Count": *way.Left})
	case c != nil && c.Attempts > 1 && f.say.has(h.name+".clock"):
		// Said because of how many answers were wrong, never because of which: that a code belongs to a later time is what a guesser would like to know.
		f.Notice = say("clock")
	}
	f.Body = body
	return h.render(w, r, status, "answer", f)
}

// state says what keeps a person from answering, and whether asking anew is the cure.
func (h answerPage) state(say *tongue, in *authn.SignIn) (problem template.HTML, again bool) {
	c := in.Challenge
	switch {
	case c == nil:
		return "", false
	case c.BlockedUntil != nil && limits.Endless(*c.BlockedUntil):
		return say.say("code.closed", values{"Service": h.Service}), false
	case c.BlockedUntil != nil:
		return say.say("code.locked", values{"Time": say.clock(*c.BlockedUntil)}), false
	case c.Outcome == "failed" || c.AttemptsLeft() == 0:
		return say.of(h.name, "dead", nil), true
	case !c.Live(in.Now):
		return say.of(h.name, "expired", nil), true
	}
	return "", false
}

func (h answerPage) post(w http.ResponseWriter, r *http.Request) error {
	v, err := h.posted(w, r)
	if err != nil {
		return err
	}
	p, way, err := h.due(w, r, v)
	if p == nil {
		return err
	}
	h.takeRemember(r, v.form, p)
	next, err := h.SignIns.Answer(r.Context(), v.cookie, p, v.form.Get("code"))
	if err == nil {
		if way.Left != nil && *way.Left == 1 && proved(next) && h.enrols(h.name) { // that was the last: see P9
			h.SetCookie(w, next.Cookie)
			redirect(w, address("/enrol/"+h.name, v.flow))
			return nil
		}
		return h.Next(w, r, next, v.cookie)
	}
	say := h.texts.pick(r, p.SignIn.Locales)
	for typed, name := range map[error]string{factors.ErrCodeEmpty: "empty", factors.ErrCodeShort: "short", factors.ErrCodeLong: "long", factors.ErrCodeChars: "chars"} {
		if errors.Is(err, typed) {
			return h.show(w, r, p, way, http.StatusUnprocessableEntity, say.of(h.name, name, nil))
		}
	}
	blocked, isBlocked := errors.AsType[*factors.BlockedError](err)
	if !isBlocked && !errors.Is(err, factors.ErrMismatch) && !errors.Is(err, factors.ErrOver) {
		return h.elsewhere(w, r, v, err)
	}
	// The page tells how things stand now, hence they are read again.
	remember := p.Remember
	v.form = nil
	p, way, problem := h.due(w, r, v)
	if p == nil {
		return problem
	}
	p.Remember = remember
	if isBlocked {
		w.Header().Set("Retry-After", retry(p.SignIn.Now, blocked.Until))
		return h.show(w, r, p, way, http.StatusTooManyRequests, say.say("login.rate", values{"Time": say.clock(blocked.Until)}))
	}
	return h.show(w, r, p, way, http.StatusUnprocessableEntity, h.wrong(say, p, err))
}

// wrong says what was wrong about an answer that was looked at.
func (h answerPage) wrong(say *tongue, p *authn.Progress, err error) template.HTML {
	if errors.Is(err, factors.ErrUsed) {
		return say.of(h.name, "used", nil)
	}
	if c := p.SignIn.Challenge; c != nil && c.AttemptsLeft() <= 3 {
		return say.of(h.name, "wrong_left", values{"Count": c.AttemptsLeft()})
	}
	return say.of(h.name, "wrong", nil)
}

// again asks anew after a challenge has ended. One that lives stays: its attempts are not given back.
func (h answerPage) again(w http.ResponseWriter, r *http.Request) error {
	v, err := h.posted(w, r)
	if err != nil {
		return err
	}
	p, way, err := h.due(w, r, v)
	if p == nil {
		return err
	}
	if c := p.SignIn.Challenge; c != nil && !c.Live(p.SignIn.Now) {
		return h.choose(w, r, v, p, way.ID)
	}
	return h.Next(w, r, p, v.cookie)
}

// choose opens a challenge for an authenticator and leads to its page.
func (h *Handler) choose(w http.ResponseWriter, r *http.Request, v visit, p *authn.Progress, authenticator uuid.UUID) error {
	next, err := h.SignIns.Choose(r.Context(), v.cookie, v.flow, authenticator, h.texts.pick(r, p.SignIn.Locales).tag.String())
	if errors.Is(err, authn.ErrHeldBack) {
		return h.methods(w, r, p, http.StatusUnprocessableEntity, fault{"method", h.texts.pick(r, p.SignIn.Locales).say("send.held", nil)})
	}
	if err != nil {
		return h.elsewhere(w, r, v, err)
	}
	return h.Next(w, r, next, v.cookie)
}
