// Package web is what a person sees: the pages of a sign-in, one folder each, rendered on the server, complete without script.
//
// # How a sign-in is led
//
// [Handler.Next] is the one dispatcher. After every step it looks at what package authn decided and leads the browser to the page of the
// step that is due, or lets the [Application] answer. A page never decides: one that is opened out of turn leads on to the one that is due.
//
// # What protects a form
//
// The sign-in is named in the address and found only under its own browser's cookie. Every form carries a proof, a keyed hash over
// session, sign-in and step, so that a form of another session, sign-in or step is refused; and a POST that does not provably come
// from our own origin is refused before that. What is safe to read changes nothing.
//
// # Texts
//
// Every text is in locales/, by id. Templates hold none.
package web

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/text/language"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/backchannel"
	"github.com/watchword-auth/watchword/authn/recovery"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/gateway"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

//go:embed enrol
//go:embed confirm
//go:embed recover
//go:embed layout.html answered login code answer methods help consent unmet signout problem formpost account factor password document verify
var templates embed.FS

//go:embed assets
var assets embed.FS

// Application answers the relying party when a sign-in ends. Package oidc implements it.
type Application interface {
	// Finish answers with success; p was decided from the state just read.
	Finish(w http.ResponseWriter, r *http.Request, p *authn.Progress, cookie authn.Cookie) error
	// Refuse ends the sign-in and answers with an error.
	Refuse(w http.ResponseWriter, r *http.Request, p *authn.Progress, cookie authn.Cookie, failure authn.Failure) error
	// SignOut ends the session of this cookie and what it gave.
	SignOut(r *http.Request, cookie authn.Cookie) error
}

// Completer is an [Application] whose people confirm payments. Package oidc implements it.
type Completer interface {
	// Completion is Finish for the statement that stores an approval. Nil: the application was answered otherwise.
	Completion(w http.ResponseWriter, r *http.Request, p *authn.Progress, cookie authn.Cookie, payment uuid.UUID) (*authn.Completion, error)
	// Told is the name of the level that the application of a sign-in is told.
	Told(p *authn.Progress) string
	// SignOutWith adds to q what SignOut does, but for the end of the person's challenges.
	SignOutWith(ctx context.Context, q *postgres.Query, cookie authn.Cookie, reason string)
}

// Config of the pages. SignIns, Keys, Issuer and Service are required.
type Config struct {
	SignIns *authn.Service
	Keys    factors.Keys
	Issuer  string
	Service string // the name that people know
	// Default is the locale of last resort. Default en.
	Default string
	// Links of the footer; empty ones are left out.
	Help, Privacy, Accessibility string
	// Outage, when set, says whether text messages do not get through at the moment: the first page tells people.
	Outage func() bool
	// Programs, when set, have pages for codes that other programs ask for.
	Programs *gateway.Gateway
	// Recovery gets people back in who have forgotten or lost something. Nil: they are told to ask the people who run the service.
	Recovery *recovery.Engine
	// Countries that are texted, ISO 3166-1 alpha-2. Nil: all of them.
	Countries []string
	// Payments are what people confirm, and Orders reads what applications want to have confirmed. Nil: there is nothing to confirm.
	Payments *transaction.Service
	Orders   *transaction.Details
	// Questions are what applications ask elsewhere. Nil: they cannot.
	Questions *backchannel.Service
	// Dev shows developers what is wrong with a request.
	Dev bool
	Log *slog.Logger
}

// Handler serves the pages. It is safe for concurrent use once App is set.
type Handler struct {
	Config
	// App is set after New, because it needs the pages as well.
	App Application
	// Completer is set likewise, where there are Payments.
	Completer Completer

	origin string
	secure bool
	texts  *texts
	pages  map[string]*template.Template
	files  map[string]file // by the name in the address, which holds their hash
	names  map[string]string
	served map[string]bool // countries
}

type file struct {
	data []byte
	kind string
}

// New makes the pages.
func New(cfg Config) (*Handler, error) {
	u, err := url.Parse(cfg.Issuer)
	if err != nil || u.Host == "" {
		return nil, errors.New("issuer: not an absolute URL")
	}
	if cfg.Default == "" {
		cfg.Default = "en"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{Config: cfg, origin: u.Scheme + "://" + u.Host, secure: u.Scheme == "https",
		pages: map[string]*template.Template{}, files: map[string]file{}, names: map[string]string{}}
	if h.texts, err = newTexts(cfg.Default, h.cookieName("lang")); err != nil {
		return nil, err
	}
	if err := h.loadFiles(); err != nil {
		return nil, err
	}
	if err := h.serve(); err != nil {
		return nil, err
	}
	layout, err := template.New("layout.html").Funcs(template.FuncMap{"asset": func(name string) string { return "/assets/" + h.names[name] }}).ParseFS(templates, "layout.html")
	if err != nil {
		return nil, err
	}
	for name := range h.answerPages() {
		if knownPaths()["/login/"+name] || url.PathEscape(name) != name || name == "" {
			return nil, fmt.Errorf("factor page %q: not a name, or another page's", name)
		}
	}
	for _, name := range []string{"login", "code", "answer", "methods", "help", "consent", "unmet", "signout", "answered", "problem", "formpost", "account", "factor", "password", "document", "verify", "confirm", "confirmed", "unready"} {
		page, err := layout.Clone()
		if err != nil {
			return nil, err
		}
		if h.pages[name], err = page.ParseFS(templates, templateOf(name)); err != nil {
			return nil, err
		}
	}
	for _, name := range enrolTemplates {
		page, err := layout.Clone()
		if err != nil {
			return nil, err
		}
		if h.pages["enrol_"+name], err = page.ParseFS(templates, "enrol/"+name+".html"); err != nil {
			return nil, err
		}
	}
	for _, name := range recoverTemplates {
		page, err := layout.Clone()
		if err != nil {
			return nil, err
		}
		if h.pages["recover_"+name], err = page.ParseFS(templates, "recover/"+name+".html"); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// templateOf is where a page's template is: one folder each, but for those that come one after the other.
func templateOf(name string) string {
	switch name {
	case "confirmed", "unready":
		return "confirm/" + name + ".html"
	}
	return name + "/page.html"
}

// loadFiles names each static file by its content, so that it can be kept for ever.
func (h *Handler) loadFiles() error {
	return fs.WalkDir(assets, "assets", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := assets.ReadFile(p)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		base, ext := path.Base(p), path.Ext(p)
		name := strings.TrimSuffix(base, ext) + "." + hex.EncodeToString(sum[:6]) + ext
		h.files[name], h.names[base] = file{data: data, kind: mime.TypeByExtension(ext)}, name
		return nil
	})
}

// Routes serves the pages, at paths relative to the issuer. Whatever else is asked for is answered with a page that says so.
func (h *Handler) Routes() http.Handler {
	mux, known := http.NewServeMux(), knownPaths()
	pages := map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /{$}": h.getRoot, "GET /login": h.getLogin, "POST /login": h.postLogin, "POST /login/cancel": h.postCancel,
		"GET /login/code": h.getCode, "POST /login/code": h.postCode, "POST /login/code/resend": h.postResend, "GET /login/code/state": h.getCodeState,
		"GET /login/methods": h.getMethods, "POST /login/methods": h.postMethods, "GET /login/help": h.getHelp,
		"GET /login/unmet": h.getUnmet, "POST /login/unmet": h.postUnmet,
		"GET /consent": h.getConsent, "POST /consent": h.postConsent,
		"POST /logout/confirm": h.postSignOut,
	}
	for pattern, page := range h.confirmPages() {
		_, path, _ := strings.Cut(pattern, " ")
		pages[pattern], known[path] = page, true
	}
	for pattern, page := range h.accountPages() {
		_, path, _ := strings.Cut(pattern, " ")
		mux.Handle(pattern, speaksJSON(h.handle(page)))
		known[path] = true
	}
	for pattern, page := range h.recoverPages() {
		_, path, _ := strings.Cut(pattern, " ")
		mux.Handle(pattern, speaksJSON(h.handle(page)))
		known[path] = true
	}
	for name := range h.answerPages() {
		path, page := "/login/"+name, answerPage{h, name}
		pages["GET "+path], pages["POST "+path], pages["POST "+path+"/again"] = page.get, page.post, page.again
		known[path], known[path+"/again"] = true, true
	}
	maps.Copy(pages, h.programPages())
	for pattern, page := range pages {
		mux.HandleFunc(pattern, h.handle(page))
	}
	for pattern, page := range h.enrolRoutes() {
		_, path, _ := strings.Cut(pattern, " ")
		mux.Handle(pattern, speaksJSON(h.handle(page)))
		known[path] = true
	}
	mux.HandleFunc("GET /assets/{name}", h.asset)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if known[r.URL.Path] {
			h.Problem(w, r, http.StatusMethodNotAllowed, "method", "")
			return
		}
		h.Problem(w, r, http.StatusNotFound, "not_found", "")
	})
	return mux
}

// getRoot leads whoever typed the address of this server to the one page here that begins by itself.
func (h *Handler) getRoot(w http.ResponseWriter, _ *http.Request) error {
	redirect(w, accountPath)
	return nil
}

// knownPaths are those of pages: another method there is told from a page that does not exist.
func knownPaths() map[string]bool {
	return map[string]bool{"/": true, "/login": true, "/login/cancel": true, "/login/code": true, "/login/code/resend": true, "/login/code/state": true,
		"/login/methods": true, "/login/help": true, "/login/unmet": true, "/consent": true, "/logout/confirm": true}
}

func (h *Handler) asset(w http.ResponseWriter, r *http.Request) {
	f, ok := h.files[r.PathValue("name")]
	if !ok {
		h.Problem(w, r, http.StatusNotFound, "not_found", "")
		return
	}
	w.Header().Set("Content-Type", f.kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Write(f.data) //nolint:errcheck // the reader has gone
}

// handle answers what a page returns as an error: the one place that does.
func (h *Handler) handle(page func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if locale := r.URL.Query().Get("lang"); locale != "" && r.Method == http.MethodGet {
			h.chooseLanguage(w, r, locale)
			return
		}
		err := page(w, r)
		switch {
		case err == nil:
		case errors.Is(err, errNoCookie):
			h.Problem(w, r, http.StatusForbidden, "cookies", "")
		case errors.Is(err, authn.ErrSignInOver):
			h.Problem(w, r, http.StatusGone, "page_expired", "")
		case errors.Is(err, gateway.ErrNoPage):
			h.Problem(w, r, http.StatusNotFound, "not_found", "")
		case errors.Is(err, httpkit.ErrForeign), errors.Is(err, errProof):
			h.Problem(w, r, http.StatusForbidden, "forbidden", "")
		case errors.Is(err, httpkit.ErrMediaType):
			h.Problem(w, r, http.StatusUnsupportedMediaType, "request", "")
		case errors.Is(err, httpkit.ErrTooLarge):
			h.Problem(w, r, http.StatusRequestEntityTooLarge, "request", "")
		case errors.Is(err, httpkit.ErrForm):
			h.Problem(w, r, http.StatusBadRequest, "request", "")
		case postgres.Unavailable(err):
			h.Log.ErrorContext(r.Context(), "page failed", "route", r.Pattern, "error", err)
			w.Header().Set("Retry-After", "5")
			h.Problem(w, r, http.StatusServiceUnavailable, "maintenance", "")
		default:
			h.Log.ErrorContext(r.Context(), "page failed", "route", r.Pattern, "error", err)
			h.Problem(w, r, http.StatusInternalServerError, "fault", "")
		}
	}
}

// chooseLanguage keeps the choice and shows the same page again.
func (h *Handler) chooseLanguage(w http.ResponseWriter, r *http.Request, locale string) {
	if tag, ok := h.texts.knows(locale); ok {
		http.SetCookie(w, &http.Cookie{Name: h.texts.cookie, Value: tag.String(), Path: "/", MaxAge: 365 * 24 * 3600, Secure: h.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	}
	query := url.Values{}
	if flow := r.URL.Query().Get("flow"); flow != "" {
		query.Set("flow", flow)
	}
	for _, name := range []string{"enrolment", "replace", "id"} {
		if id, err := uuid.Parse(r.URL.Query().Get(name)); err == nil {
			query.Set(name, id.String())
		}
	}
	target := r.URL.Path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	redirect(w, target)
}

// Errors that only pages have.
var (
	errNoCookie = errors.New("web: the browser sent no cookie")
	errProof    = errors.New("web: form of another session, sign-in or step")
)

// Cookie implements oidc.Pages.
func (h *Handler) Cookie(r *http.Request) authn.Cookie {
	c, err := r.Cookie(h.cookieName(sessionCookie))
	if err != nil || len(c.Value) > 100 {
		return ""
	}
	return authn.Cookie(c.Value)
}

// SetCookie implements oidc.Pages.
func (h *Handler) SetCookie(w http.ResponseWriter, cookie authn.Cookie) {
	c := &http.Cookie{Name: h.cookieName(sessionCookie), Value: string(cookie), Path: "/", Secure: h.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if cookie == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// sessionCookie is what the cookie of sessions is called, before its prefix.
const sessionCookie = "watchword"

// cookieName has the prefix that binds a cookie to its host, except on plain http, where browsers refuse it: loopback in development.
func (h *Handler) cookieName(name string) string {
	if h.secure {
		return "__Host-" + name
	}
	return name
}

// Next implements oidc.Pages: it is the dispatcher.
func (h *Handler) Next(w http.ResponseWriter, r *http.Request, p *authn.Progress, cookie authn.Cookie) error {
	if p.Cookie != "" {
		h.SetCookie(w, p.Cookie)
		cookie = p.Cookie
	}
	if p.Browser != "" {
		h.setBrowserCookie(w, p.Browser)
	}
	switch p.Decision.Step {
	case authn.StepPassword:
		redirect(w, address("/login", p.SignIn.ID))
	case authn.StepFactor:
		due, err := h.SignIns.Due(p)
		if err != nil {
			return err
		}
		redirect(w, address("/login/"+due.Page.Name, p.SignIn.ID))
	case authn.StepConsent:
		redirect(w, address("/consent", p.SignIn.ID))
	case authn.StepConfirm:
		return h.toConfirm(w, r, p, cookie)
	case authn.StepEnrol:
		redirect(w, address("/enrol", p.SignIn.ID))
	case authn.StepDone:
		return h.answers(p).Finish(w, r, p, cookie)
	case authn.StepFail:
		if lacking(p) {
			redirect(w, address("/login/unmet", p.SignIn.ID))
			return nil
		}
		return h.answers(p).Refuse(w, r, p, cookie, p.Decision.Failure)
	default:
		return fmt.Errorf("no page for step %d", p.Decision.Step)
	}
	return nil
}

// redirect leads on with 303: what was posted is not posted again.
func redirect(w http.ResponseWriter, target string) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusSeeOther)
}

func address(path string, flow uuid.UUID) string {
	return path + "?" + url.Values{"flow": {flow.String()}}.Encode()
}

// visit is one request for a page of a sign-in.
type visit struct {
	cookie authn.Cookie
	flow   uuid.UUID
	form   url.Values
}

// open reads which sign-in a request is for.
func (h *Handler) open(r *http.Request) (v visit, err error) {
	v.cookie = h.Cookie(r)
	if v.cookie == "" {
		return v, errNoCookie
	}
	if v.flow, err = uuid.Parse(r.URL.Query().Get("flow")); err != nil {
		return v, authn.ErrSignInOver
	}
	return v, nil
}

// at loads the sign-in of a request and makes sure that step is due; otherwise it leads to the one that is and gives nil.
func (h *Handler) at(w http.ResponseWriter, r *http.Request, step authn.Step) (*authn.Progress, error) {
	v, err := h.open(r)
	if err != nil {
		return nil, err
	}
	p, err := h.SignIns.Load(r.Context(), v.cookie, v.flow)
	if err != nil {
		return nil, err
	}
	if p.Decision.Step != step {
		return nil, h.Next(w, r, p, v.cookie)
	}
	return p, nil
}

// posted reads a form for the named step. The proof is checked against the session that the cookie names, hence after the sign-in was loaded.
func (h *Handler) posted(w http.ResponseWriter, r *http.Request) (visit, error) {
	form, err := httpkit.ReadForm(w, r, h.origin)
	if err != nil {
		return visit{}, err
	}
	v, err := h.open(r)
	v.form = form
	return v, err
}

const proofLabel = "form"

// proof binds a form to its session, sign-in and step. It names the session, so that a form can be checked before anything is read.
func (h *Handler) proof(session, flow uuid.UUID, step string) string {
	return base64.RawURLEncoding.EncodeToString(append(session[:], h.Keys.Hash(proofLabel, session[:], flow[:], []byte(step))...))
}

// readProof gives the session that a form was made for, if the form is one of ours for that sign-in and step.
func (h *Handler) readProof(form url.Values, flow uuid.UUID, step string) (session uuid.UUID, ok bool) {
	given, err := base64.RawURLEncoding.DecodeString(form.Get("proof"))
	if err != nil || len(given) <= len(session) {
		return uuid.Nil, false
	}
	session = uuid.UUID(given[:len(session)])
	for _, want := range h.Keys.Hashes(proofLabel, session[:], flow[:], []byte(step)) {
		if hmac.Equal(given[len(session):], want) {
			return session, true
		}
	}
	return uuid.Nil, false
}

func (h *Handler) proven(form url.Values, session, flow uuid.UUID, step string) bool {
	made, ok := h.readProof(form, flow, step)
	return ok && made == session
}

// frame is what every page has.
type frame struct {
	Lang, Dir, Service     string
	Title, Heading         template.HTML
	Over                   string // stands above the heading
	Client, HomeURI        string
	Flow, Proof, Cancel    string // Cancel is the proof of the cancel form; empty: none
	ID                     string // what the page is about
	Errors                 []fault
	Notice                 template.HTML // a status message
	Languages              []lang
	Path                   string
	Keep                   template.URL // what else of the address a link to the same page needs
	Help, Privacy, Access  string
	Wide                   bool // for documents
	Tenant                 bool // the page is in the name of a tenant, whose mark ours is not
	Body                   any
	say                    *tongue
	formAction, retryAfter string
	code                   string // says to programs what is wrong
}

// fault is one thing to mend, said in the summary and beside its field.
type fault struct {
	Field string
	Text  template.HTML
}

// T renders a text without values.
func (f *frame) T(id string) template.HTML { return f.say.say(id, nil) }

// TC renders a text that names the application and the service.
func (f *frame) TC(id string) template.HTML {
	return f.say.say(id, values{"Client": f.Client, "Service": f.Service})
}

// Fault gives the text beside a field, or "".
func (f *frame) Fault(field string) template.HTML {
	for _, e := range f.Errors {
		if e.Field == field {
			return e.Text
		}
	}
	return ""
}

// page begins the frame of a page of a sign-in.
func (h *Handler) page(r *http.Request, in *authn.SignIn, step string) *frame {
	f := h.bare(r, in.Locales)
	f.Client, f.HomeURI, f.Flow = in.RelyingParty.Name, in.RelyingParty.HomeURI, in.ID.String()
	f.Proof, f.Cancel = h.proof(in.Session.ID, in.ID, step), h.proof(in.Session.ID, in.ID, "cancel")
	f.formAction = in.RelyingParty.Origin
	return f
}

// bare begins the frame of a page that belongs to no sign-in.
func (h *Handler) bare(r *http.Request, locales string) *frame {
	t := h.texts.pick(r, locales)
	return &frame{Lang: t.tag.String(), Dir: t.dir(), Service: h.Service, Languages: t.languages(), Path: r.URL.Path,
		Help: h.Help, Privacy: h.Privacy, Access: h.Accessibility, say: t}
}

// render writes a whole page or none.
func (h *Handler) render(w http.ResponseWriter, r *http.Request, status int, name string, f *frame) error {
	if f.Heading == "" {
		f.Heading = f.Title
	}
	if inJSON(r) {
		return h.renderJSON(w, status, name, f)
	}
	if len(f.Errors) > 0 {
		f.Title = f.say.say("page.error", values{"Title": f.Title})
	}
	var html bytes.Buffer
	if err := h.pages[name].ExecuteTemplate(&html, "layout.html", f); err != nil {
		return fmt.Errorf("render %s: %w", name, err)
	}
	header := w.Header()
	action := "'self'"
	if f.formAction != "" {
		action += " " + f.formAction
	}
	header.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action "+action+
		"; frame-ancestors 'none'; base-uri 'none'")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Language", f.Lang)
	if h.secure {
		header.Set("Strict-Transport-Security", "max-age=31536000")
	}
	if f.retryAfter != "" {
		header.Set("Retry-After", f.retryAfter)
	}
	header.Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		html.WriteTo(w) //nolint:errcheck // the reader has gone
	}
	return nil
}

// retry says how long to wait from now until at, in whole seconds. Nobody is told to stay away for more than a day: what is blocked for good may be
// unblocked at any time.
func retry(now, at time.Time) string {
	return strconv.Itoa(int(min(max(1, at.Sub(now).Seconds()+1), (24 * time.Hour).Seconds())))
}

// Problem implements oidc.Pages.
func (h *Handler) Problem(w http.ResponseWriter, r *http.Request, status int, id, detail string) {
	f := h.bare(r, "")
	f.Title, f.code = f.T("problem."+id), id
	body := map[string]template.HTML{
		"Text":      f.say.say("problem."+id+"_body", values{"Issuer": h.Issuer, "Service": h.Service}),
		"Reference": "",
	}
	if reference := httpkit.RequestID(r.Context()); reference != "" {
		body["Reference"] = f.say.say("page.reference", values{"ID": reference})
	}
	if h.Dev && detail != "" {
		body["Detail"] = f.say.say("problem.detail", values{"Detail": detail})
	}
	f.Body = body
	if err := h.render(w, r, status, "problem", f); err != nil {
		h.Log.ErrorContext(r.Context(), "page failed", "error", err)
		http.Error(w, "Something went wrong on our side.", http.StatusInternalServerError)
	}
}

// Document shows a document in English, such as the description of an API, in the look of all pages. Package gateway hands them in.
func (h *Handler) Document(w http.ResponseWriter, r *http.Request, title string, body template.HTML) {
	say := h.texts.in(language.English)
	f := &frame{Lang: say.tag.String(), Dir: say.dir(), Service: h.Service, Title: template.HTML(template.HTMLEscapeString(title)), Help: h.Help, Privacy: h.Privacy, Access: h.Accessibility, //nolint:gosec // escaped
		Wide: true, Body: body, say: say}
	h.show(w, r, "document", f)
}

// WrongHost answers whoever calls this server by another name.
func (h *Handler) WrongHost(w http.ResponseWriter, r *http.Request) {
	h.Problem(w, r, http.StatusMisdirectedRequest, "host", "")
}

// Failed answers a request that ended in a fault of ours.
func (h *Handler) Failed(w http.ResponseWriter, r *http.Request) {
	h.Problem(w, r, http.StatusInternalServerError, "fault", "")
}
