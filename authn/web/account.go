package web

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/mileusna/useragent"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/backchannel"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// ---------------------------------------------------------------- P21, the account

// accountPath is the page of somebody's own account. Whoever is not signed in there is led through a sign-in like any, and back.
const accountPath = "/account"

// accountPages are the pages below it. All that posts changes something, in a session with fresh proofs.
func (h *Handler) accountPages() map[string]func(http.ResponseWriter, *http.Request) error {
	return map[string]func(http.ResponseWriter, *http.Request) error{
		"GET " + accountPath: h.getAccount, "GET " + accountPath + "/factor": h.getFactor, "GET " + accountPath + "/password": h.getPassword,
		"POST " + accountPath + "/confirm": h.postConfirm, "POST " + accountPath + "/rename": h.postRename, "POST " + accountPath + "/remove": h.postRemove,
		"POST " + accountPath + "/prefer": h.postPrefer, "POST " + accountPath + "/browsers": h.postBrowsers, "POST " + accountPath + "/sessions": h.postSessions,
		"POST " + accountPath + "/applications": h.postApplications, "POST " + accountPath + "/password": h.postPassword, "POST " + accountPath + "/export": h.postExport,
	}
}

// ownAccount answers the sign-ins that lead to the account, as package oidc answers those of applications.
type ownAccount struct{ *Handler }

// Finish implements Application.
func (a ownAccount) Finish(w http.ResponseWriter, r *http.Request, p *authn.Progress, cookie authn.Cookie) error {
	q := new(postgres.Query)
	a.SignIns.Complete(q, p.SignIn, cookie)
	q.Finally("SELECT 1 FROM sign_in_done")
	switch n, err := a.SignIns.DB.Run(r.Context(), q); {
	case err != nil:
		return fmt.Errorf("finish the sign-in to an account: %w", err)
	case n == 0:
		return authn.ErrSignInOver
	}
	target := comingFrom(p.SignIn)
	if p.SignIn.Requirement.Strongest && strings.HasPrefix(target, accountPath) {
		a.say(w, "confirm")
	}
	redirect(w, target)
	return nil
}

// errand is what a sign-in to the account keeps: which page it is for.
type errand struct {
	Return string `json:"return,omitempty"`
}

// comingFrom is the page that a sign-in to the account leads back to.
func comingFrom(in *authn.SignIn) string {
	var e errand
	if json.Unmarshal(in.Payload, &e) != nil || !strings.HasPrefix(e.Return, "/enrol") && !strings.HasPrefix(e.Return, accountPath) {
		return accountPath
	}
	return e.Return
}

// wanted is the page on which somebody can do what a request was about: whoever has to give proofs first is led back to it. form is what was posted; nil: nothing was.
func (h *Handler) wanted(r *http.Request, form url.Values) string {
	query, about := r.URL.Query(), ""
	if id, err := uuid.Parse(cmp.Or(form.Get("id"), query.Get("id"))); err == nil {
		about = "/factor?" + url.Values{"id": {id.String()}}.Encode()
	}
	path, ofAccount := strings.CutPrefix(r.URL.Path, accountPath)
	switch {
	case ofAccount && (path == "/sessions" || path == "/browsers" || path == "/applications"):
		return accountPath + "#" + path[1:]
	case path == "/export":
		return accountPath + "#data"
	case path == "/password":
		return accountPath + path
	case ofAccount:
		return accountPath + about
	}
	target := accountPath
	for _, p := range h.enrolPages() {
		if path := "/enrol/" + p.name; strings.HasPrefix(r.URL.Path+"/", path+"/") {
			target = path
		}
	}
	if form == nil {
		target = r.URL.Path
	}
	if replaces, err := uuid.Parse(query.Get("replace")); err == nil {
		target += "?" + url.Values{"replace": {replaces.String()}}.Encode()
	}
	return target
}

// Refuse implements Application: whoever may look still looks, anybody else is told that they left.
func (a ownAccount) Refuse(w http.ResponseWriter, r *http.Request, p *authn.Progress, cookie authn.Cookie, failure authn.Failure) error {
	if err := a.SignIns.Cancel(r.Context(), cookie, p.SignIn, string(failure)); err != nil && !errors.Is(err, authn.ErrSignInOver) {
		return err
	}
	seen, err := a.SignIns.Account(r.Context(), cookie, "")
	if err == nil && seen.Decision.Step == authn.StepDone {
		redirect(w, accountPath)
		return nil
	}
	if err != nil && !errors.Is(err, authn.ErrNotFresh) {
		return err
	}
	a.Problem(w, r, http.StatusOK, "left", "")
	return nil
}

// SignOut implements Application.
func (a ownAccount) SignOut(r *http.Request, cookie authn.Cookie) error {
	return a.App.SignOut(r, cookie)
}

// answers is who answers when that sign-in ends.
func (h *Handler) answers(p *authn.Progress) Application {
	if p.SignIn.RelyingParty.Own {
		return ownAccount{h}
	}
	return h.App
}

// toAccount leads through a sign-in to the account, as far as one is needed, and on to target. A program is told that one is.
func (h *Handler) toAccount(w http.ResponseWriter, r *http.Request, required authn.Requirement, target string) error {
	if inJSON(r) {
		return writeProblem(w, http.StatusForbidden, map[string]any{"code": "confirmation_required", "title": http.StatusText(http.StatusForbidden), "next": target})
	}
	payload, err := json.Marshal(errand{Return: target})
	if err != nil {
		return err
	}
	cookie := h.Cookie(r)
	p, err := h.SignIns.Begin(r.Context(), cookie, authn.Beginning{RelyingParty: authn.Own(h.Service), Requirement: required, Payload: payload})
	switch {
	case err != nil:
		return err
	case p.Decision.Step == authn.StepDone && required.Strongest: // there is nothing more to ask for, and it is not enough
		redirect(w, accountPath)
		return nil
	}
	return h.Next(w, r, p, cookie)
}

// visitor is a request for a page of the account, by somebody who may see it.
type visitor struct {
	*authn.Account
	cookie authn.Cookie
	form   url.Values
}

// seen reads the account of whoever asks; whoever may not see it is led through a sign-in, and nil is given.
func (h *Handler) seen(w http.ResponseWriter, r *http.Request) (*visitor, error) {
	v := &visitor{cookie: h.Cookie(r)}
	var err error
	v.Account, err = h.SignIns.Account(r.Context(), v.cookie, h.browserCookie(r))
	switch {
	case errors.Is(err, authn.ErrNotFresh):
		return nil, h.toAccount(w, r, authn.Looking(), h.wanted(r, nil))
	case err != nil:
		return nil, err
	case v.Decision.Step != authn.StepDone:
		return nil, h.toAccount(w, r, authn.Looking(), h.wanted(r, nil))
	}
	return v, nil
}

// own begins the frame of a page of the account.
func (h *Handler) own(w http.ResponseWriter, r *http.Request, v *visitor, title string) *frame {
	f := h.bare(r, "")
	f.Title, f.Proof = f.T(title), h.proof(v.Session.ID, uuid.Nil, "account")
	if said := h.said(w, r); said != "" && slices.Contains(sayings(), said) {
		f.Notice = f.T("account." + "said_" + said)
	}
	return f
}

// Saying what was done, on the page that follows.
func sayings() []string {
	return []string{"added", "replaced", "codes", "renamed", "removed", "preferred", "forgotten", "ended", "taken", "password", "gone", "confirm"}
}

const saidCookie = "watchword-said"

func (h *Handler) say(w http.ResponseWriter, what string) {
	http.SetCookie(w, &http.Cookie{Name: h.cookieName(saidCookie), Value: what, Path: "/", MaxAge: 60, Secure: h.secure, HttpOnly: true, SameSite: http.SameSiteStrictMode})
}

func (h *Handler) said(w http.ResponseWriter, r *http.Request) string {
	c, err := r.Cookie(h.cookieName(saidCookie))
	if err != nil {
		return ""
	}
	http.SetCookie(w, &http.Cookie{Name: c.Name, Path: "/", MaxAge: -1, Secure: h.secure, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	return c.Value
}

// accountBody is what the page shows besides its frame.
type accountBody struct {
	Waiting      []shownQuestion
	Username     template.HTML
	Fresh        bool
	Factors      []shownFactor
	Add          []addable
	Browsers     []shownSeat
	Sessions     []shownSeat
	Others       bool // sessions besides this one
	Applications []shownApplication
	Activity     []template.HTML
	seen         accountFacts
}

func (b accountBody) facts() any { return b.seen }

type shownFactor struct {
	ID, Kind, Name string
	Typed          string // the name, as it was typed
	Label          template.HTML
	Used           template.HTML
	Left           template.HTML
	Stays, First   bool
	Fresh          bool   // it can be changed without another proof
	Replace        string // where a number is changed for another; "": nowhere
	Renew          string // where a set of answers is made anew; "": nowhere
	RenewLabel     template.HTML
	CanFirst       bool
	CanRename      bool
	seen           factorFacts
}

func (b shownFactor) facts() any { return b.seen }

type shownSeat struct {
	ID          string
	Label, Used template.HTML
	Note        template.HTML
	This        bool
}

type shownApplication struct {
	ID, Name string
	Scopes   []template.HTML
	Since    template.HTML
}

func (h *Handler) getAccount(w http.ResponseWriter, r *http.Request) error {
	v, err := h.seen(w, r)
	if v == nil {
		return err
	}
	return h.account(w, r, v, http.StatusOK)
}

func (h *Handler) account(w http.ResponseWriter, r *http.Request, v *visitor, status int) error {
	var err error
	f := h.own(w, r, v, "account.title")
	f.Path = accountPath
	body := accountBody{Username: f.say.say("account.who", values{"Username": v.Session.Username}), Fresh: v.Fresh}
	for i := range v.Session.Bound {
		body.Factors = append(body.Factors, h.shownFactor(f.say, v, i))
	}
	body.Add = h.addable(f.say, v)
	if inJSON(r) {
		body.seen = h.accountFacts(v)
		body.seen.Add = append(body.seen.Add, body.Add...)
	}
	for _, b := range v.Browsers {
		body.Browsers = append(body.Browsers, shownSeat{ID: b.ID.String(), Label: browserName(f.say, b.Agent), Used: f.say.say("account.browser_used", values{"Date": f.say.moment(b.LastUsedAt), "Until": f.say.date(b.ExpiresAt)}), This: b.This})
	}
	for _, s := range v.Sessions {
		seat := shownSeat{ID: s.ID.String(), Label: browserName(f.say, s.Agent), Used: f.say.say("account.session_used", values{"Date": f.say.moment(s.LastUsedAt), "Since": f.say.moment(s.CreatedAt)}), This: s.This}
		if s.Half {
			seat.Note = f.T("account.session_half")
		}
		body.Others = body.Others || !s.This
		body.Sessions = append(body.Sessions, seat)
	}
	for _, g := range v.Given {
		shown := shownApplication{ID: g.Application, Name: g.Name, Since: f.say.say("account.since", values{"Date": f.say.date(g.Since)})}
		if shown.Name == "" {
			shown.Name = g.Application
		}
		for _, scope := range g.Scopes {
			shown.Scopes = append(shown.Scopes, f.scope(scope))
		}
		body.Applications = append(body.Applications, shown)
	}
	for i := range v.Activity {
		body.Activity = append(body.Activity, h.activity(f.say, &v.Activity[i], v.Names))
	}
	if body.Waiting, err = h.waiting(r, f, v); err != nil {
		return err
	}
	f.Body = body
	return h.render(w, r, status, "account", f)
}

// shownQuestion is something that an application asked elsewhere.
type shownQuestion struct {
	Path    string
	What    template.HTML
	Message string // that the application shows as well
	Until   template.HTML
}

// waiting lists what waits for an answer of this person.
func (h *Handler) waiting(r *http.Request, f *frame, v *visitor) (all []shownQuestion, err error) {
	if h.Questions == nil {
		return nil, nil
	}
	open, err := h.Questions.Open(r.Context(), v.Session.Subscriber)
	for _, q := range open {
		shown := shownQuestion{Path: backchannel.Path(q.ID), Message: q.Requirement.Backchannel.Message, Until: f.say.say("account.waiting_until", values{"Time": f.say.clock(q.ExpiresAt)})}
		if shown.What = f.say.say("account.waiting_sign_in", values{"Client": q.RelyingParty.Name}); q.Requirement.Confirms() {
			shown.What = f.say.say("account.waiting_payment", values{"Client": q.RelyingParty.Name})
		}
		all = append(all, shown)
	}
	return all, err
}

// scope says in words what an application may have.
func (f *frame) scope(scope string) template.HTML {
	if slices.Contains([]string{"openid", "profile", "email", "address", "phone", "offline_access"}, scope) {
		return f.T("consent." + scope)
	}
	return f.say.say("consent.scope", values{"Scope": scope})
}

// addable lists what the person can set up besides what there is. Sets of answers are made anew in place of those before, from where they are shown.
func (h *Handler) addable(say *tongue, v *visitor) (list []addable) {
	e := &enrolling{session: v.Session}
	for _, p := range h.enrolPages() {
		if !e.fits(p) || p.runsOut() && slices.ContainsFunc(v.Session.Bound, func(a factors.Authenticator) bool { return a.Kind == p.factor.Kind() }) {
			continue
		}
		list = append(list, p.addable(say))
	}
	return list
}

func (h *Handler) shownFactor(say *tongue, v *visitor, i int) shownFactor {
	a := v.Session.Bound[i]
	shown := shownFactor{ID: a.ID.String(), Kind: a.Kind, Name: a.Name, Typed: a.Name, Stays: v.Stays[i], First: a.Chosen, Fresh: v.Fresh, Label: say.of("factor", a.Kind, values{"Hint": a.Hint}),
		CanFirst: !a.Chosen && a.Left == nil && len(v.Session.Bound) > 1, CanRename: a.Left == nil}
	for _, p := range h.enrolPages() {
		if p.factor.Kind() == a.Kind {
			shown.Replace, shown.Renew, shown.RenewLabel = p.replace(a), p.renew(), say.enrol(p.name, "again", nil)
		}
	}
	shown.seen = h.factorFacts(v, i)
	if !say.has("factor." + a.Kind) {
		shown.Label = say.say("methods.any", nil)
	}
	shown.Used = say.say("account.added", values{"Date": say.date(a.BoundAt)})
	if !a.LastUsedAt.IsZero() {
		shown.Used = say.say("account.added_used", values{"Date": say.date(a.BoundAt), "Used": say.moment(a.LastUsedAt)})
	}
	if a.Left != nil {
		shown.Left = say.say("account.left", values{"Count": *a.Left})
	}
	return shown
}

// browserName says in words how a browser calls itself: it can say anything.
func browserName(say *tongue, agent string) template.HTML {
	ua := useragent.Parse(agent)
	switch {
	case ua.Name == "" || strings.ContainsAny(ua.Name, "/;()"):
		return say.say("account.agent_unknown", nil)
	case ua.OS == "":
		return say.say("account.agent", values{"Browser": ua.Name})
	}
	return say.say("account.agent_on", values{"Browser": ua.Name, "System": ua.OS})
}

// activity says in words what a record tells.
func (h *Handler) activity(say *tongue, e *audit.Entry, names map[string]string) template.HTML {
	group := strings.NewReplacer(".", "_").Replace(e.Event)
	name := names[e.Client.V]
	switch {
	case name != "":
	case e.Client.V == authn.OwnID:
		name = h.Service
	default:
		name = e.Client.V
	}
	fill := values{"Client": name, "Service": h.Service, "Factor": say.factor(e.Reason)}
	id := "activity." + group
	if e.Outcome != audit.Success {
		id += "_" + e.Outcome
	}
	if !say.has(id) {
		id = "activity.something"
	}
	text := say.say(id, fill)
	if strings.HasPrefix(e.Actor, audit.Operator) {
		text = say.say("activity.operator", values{"Text": text, "Service": h.Service})
	}
	return say.say("activity.line", values{"Date": say.moment(e.At), "Text": text})
}

// factor is what a kind of factor is called.
func (t *tongue) factor(kind string) template.HTML {
	if id := "factor.name_" + kind; kind != "" && t.has(id) {
		return t.say(id, nil)
	}
	return t.say("methods.any", nil)
}

// date renders a day, and moment a day with its time, in figures that read the same in every language. A script shows them in the reader's zone.
func (t *tongue) date(at time.Time) template.HTML {
	at = at.UTC()
	return template.HTML(`<time datetime="` + at.Format(time.RFC3339) + `" data-show="date">` + at.Format(time.DateOnly) + `</time>`) //nolint:gosec // made here
}

func (t *tongue) moment(at time.Time) template.HTML {
	at = at.UTC()
	shown := t.say("page.utc", values{"Time": at.Format("2006-01-02 15:04")})
	return template.HTML(`<time datetime="` + at.Format(time.RFC3339) + `" data-show="moment">` + string(shown) + `</time>`) //nolint:gosec // made here
}

// one is the authenticator that a request is about.
func (v *visitor) one(id string) (int, bool) {
	i := slices.IndexFunc(v.Session.Bound, func(a factors.Authenticator) bool { return a.ID.String() == id })
	return i, i >= 0
}

func (h *Handler) getFactor(w http.ResponseWriter, r *http.Request) error {
	v, err := h.seen(w, r)
	if v == nil {
		return err
	}
	return h.factor(w, r, v, r.URL.Query().Get("id"), http.StatusOK, "")
}

// factor renders the page of one of them, with what is wrong about a change of it: in words, and as code to programs.
func (h *Handler) factor(w http.ResponseWriter, r *http.Request, v *visitor, id string, status int, code string, wrong ...fault) error {
	i, ok := v.one(id)
	if !ok {
		h.say(w, "gone")
		redirect(w, accountPath)
		return nil
	}
	f := h.own(w, r, v, "account.factor_title")
	f.Path, f.ID, f.code = accountPath+"/factor", id, code
	shown := h.shownFactor(f.say, v, i)
	if v.form.Has("name") { // what was typed is there to be mended
		shown.Typed = v.form.Get("name")
	}
	f.Errors, f.Body = wrong, shown
	return h.render(w, r, status, "factor", f)
}

func (h *Handler) getPassword(w http.ResponseWriter, r *http.Request) error {
	v, err := h.seen(w, r)
	if v == nil {
		return err
	}
	if !v.Fresh {
		return h.toAccount(w, r, h.SignIns.Changing(), h.wanted(r, nil))
	}
	return h.password(w, r, v, http.StatusOK, "")
}

// passwordBody is what the page for a new password shows.
type passwordBody struct{ Hint template.HTML }

func (h *Handler) password(w http.ResponseWriter, r *http.Request, v *visitor, status int, code string, wrong ...fault) error {
	f := h.own(w, r, v, "password.title")
	f.Path = accountPath + "/password"
	minimum := authn.MinPassword
	if len(v.Session.Bound) == 0 {
		minimum = authn.MinAlonePassword
	}
	f.code, f.Errors, f.Body = code, wrong, passwordBody{Hint: f.say.say("password.hint", values{"Count": minimum})}
	return h.render(w, r, status, "password", f)
}

// changing reads a form of the account, by somebody who may see it; nil: they were led elsewhere.
func (h *Handler) changing(w http.ResponseWriter, r *http.Request) (*visitor, error) {
	form, err := h.readForm(w, r)
	if err != nil {
		return nil, err
	}
	v := &visitor{cookie: h.Cookie(r), form: form}
	if v.cookie == "" {
		return nil, errNoCookie
	}
	holdings, err := h.SignIns.Holdings(r.Context(), v.cookie)
	if errors.Is(err, authn.ErrNotFresh) {
		return nil, h.toAccount(w, r, authn.Looking(), h.wanted(r, form))
	}
	if err != nil {
		return nil, err
	}
	if !h.proven(form, holdings.Session.ID, uuid.Nil, "account") {
		return nil, errProof
	}
	v.Account = &authn.Account{Holdings: *holdings}
	return v, nil
}

// changed answers a change of the account: it says what was done, leads through the sign-in that was lacking, or gives the error.
func (h *Handler) changed(w http.ResponseWriter, r *http.Request, v *visitor, err error, done string) error {
	switch {
	case err == nil:
		h.say(w, done)
	case errors.Is(err, authn.ErrNotFresh):
		return h.toAccount(w, r, h.SignIns.Changing(), h.wanted(r, v.form))
	case errors.Is(err, authn.ErrNothingThere), errors.Is(err, authn.ErrNoAuthenticator):
		h.say(w, "gone")
	default:
		return err
	}
	redirect(w, accountPath)
	return nil
}

// formID is what a form is about; uuid.Nil and false: it names nothing.
func formID(form url.Values) (uuid.UUID, bool) {
	id, err := uuid.Parse(form.Get("id"))
	return id, err == nil && id != uuid.Nil
}

func (h *Handler) postConfirm(w http.ResponseWriter, r *http.Request) error {
	v, err := h.changing(w, r)
	if v == nil {
		return err
	}
	return h.toAccount(w, r, h.SignIns.Changing(), h.wanted(r, v.form))
}

func (h *Handler) postRename(w http.ResponseWriter, r *http.Request) error {
	v, err := h.changing(w, r)
	if v == nil {
		return err
	}
	id, _ := formID(v.form)
	err = h.SignIns.Rename(r.Context(), v.cookie, id, v.form.Get("name"))
	if errors.Is(err, factors.ErrName) {
		return h.factor(w, r, v, id.String(), http.StatusUnprocessableEntity, "name", fault{"name", h.texts.pick(r, "").say("account.bad_name", values{"Count": factors.MaxName})})
	}
	return h.changed(w, r, v, err, "renamed")
}

func (h *Handler) postRemove(w http.ResponseWriter, r *http.Request) error {
	v, err := h.changing(w, r)
	if v == nil {
		return err
	}
	id, _ := formID(v.form)
	err = h.SignIns.Remove(r.Context(), v.cookie, id)
	if errors.Is(err, authn.ErrLastAuthenticator) {
		return h.factor(w, r, v, id.String(), http.StatusConflict, "last_factor", fault{"stays", h.texts.pick(r, "").say("account.stays", nil)})
	}
	return h.changed(w, r, v, err, "removed")
}

func (h *Handler) postPrefer(w http.ResponseWriter, r *http.Request) error {
	v, err := h.changing(w, r)
	if v == nil {
		return err
	}
	id, _ := formID(v.form)
	return h.changed(w, r, v, h.SignIns.Prefer(r.Context(), v.cookie, id), "preferred")
}

func (h *Handler) postBrowsers(w http.ResponseWriter, r *http.Request) error {
	v, err := h.changing(w, r)
	if v == nil {
		return err
	}
	id, named := formID(v.form)
	if !named && v.form.Get("id") != "all" {
		return httpkit.ErrForm
	}
	return h.changed(w, r, v, h.SignIns.Forget(r.Context(), v.cookie, id), "forgotten")
}

func (h *Handler) postSessions(w http.ResponseWriter, r *http.Request) error {
	v, err := h.changing(w, r)
	if v == nil {
		return err
	}
	id, named := formID(v.form)
	if !named && v.form.Get("id") != "others" {
		return httpkit.ErrForm
	}
	return h.changed(w, r, v, h.SignIns.EndSession(r.Context(), v.cookie, id), "ended")
}

func (h *Handler) postApplications(w http.ResponseWriter, r *http.Request) error {
	v, err := h.changing(w, r)
	if v == nil {
		return err
	}
	return h.changed(w, r, v, h.SignIns.Disconnect(r.Context(), v.cookie, v.form.Get("id")), "taken")
}

func (h *Handler) postPassword(w http.ResponseWriter, r *http.Request) error {
	v, err := h.changing(w, r)
	if v == nil {
		return err
	}
	say, words := h.texts.pick(r, ""), []string{h.Service, "watchword"}
	if issuer, err := url.Parse(h.Issuer); err == nil {
		words = append(words, issuer.Hostname())
	}
	next, err := h.SignIns.ChangePassword(r.Context(), v.cookie, v.form.Get("password"), words...)
	if errors.Is(err, authn.ErrOverloaded) {
		w.Header().Set("Retry-After", retry(v.Now, v.Now.Add(authn.RetryAfter)))
		return h.password(w, r, v, http.StatusServiceUnavailable, "busy", fault{"password", say.say("login.busy", nil)})
	}
	for known, id := range map[error]string{authn.ErrPasswordShort: "short", authn.ErrPasswordLong: "long", authn.ErrPasswordCommon: "common", authn.ErrPasswordChars: "chars", authn.ErrPasswordSame: "same"} {
		if errors.Is(err, known) {
			if v.form.Get("password") == "" {
				id = "empty"
			}
			return h.password(w, r, v, http.StatusUnprocessableEntity, "password."+id, fault{"password", say.say("password."+id, values{"Count": authn.MaxPassword})})
		}
	}
	if err == nil {
		h.SetCookie(w, next)
	}
	return h.changed(w, r, v, err, "password")
}

// postExport hands over all that is kept about whoever asks, but for secrets.
func (h *Handler) postExport(w http.ResponseWriter, r *http.Request) error {
	v, err := h.changing(w, r)
	if v == nil {
		return err
	}
	account, who, err := h.SignIns.ExportOwn(r.Context(), v.cookie)
	if err != nil {
		return h.changed(w, r, v, err, "")
	}
	data, err := json.MarshalIndent(authn.NewExport(account, who), "", "  ")
	if err != nil {
		return err
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Disposition", `attachment; filename="your-data.json"`)
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	_, err = w.Write(append(data, '\n'))
	return err
}

// ---------------------------------------------------------------- remembered browsers

// browserCookieName is that of the cookie by which a browser is remembered.
const browserCookieName = "watchword-browser"

func (h *Handler) browserCookie(r *http.Request) authn.Cookie {
	c, err := r.Cookie(h.cookieName(browserCookieName))
	if err != nil || len(c.Value) > 100 {
		return ""
	}
	return authn.Cookie(c.Value)
}

// setBrowserCookie is sent with requests of our own pages alone: a password is posted from one.
func (h *Handler) setBrowserCookie(w http.ResponseWriter, cookie authn.Cookie) {
	http.SetCookie(w, &http.Cookie{Name: h.cookieName(browserCookieName), Value: string(cookie), Path: "/", MaxAge: int(h.SignIns.Config.Remember.Seconds()),
		Secure: h.secure, HttpOnly: true, SameSite: http.SameSiteStrictMode})
}

// remembering is the text beside the choice to have this browser remembered; empty: there is none.
func (h *Handler) remembering(say *tongue, p *authn.Progress) template.HTML {
	if !p.Decision.Rememberable {
		return ""
	}
	return say.say("code.remember", values{"Count": int(h.SignIns.Config.Remember.Hours()) / 24})
}

// takeRemember reads that choice.
func (h *Handler) takeRemember(r *http.Request, form url.Values, p *authn.Progress) {
	p.Remember, p.Browser = form.Get("remember") == "yes", h.browserCookie(r)
}
