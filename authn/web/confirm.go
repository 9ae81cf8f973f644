package web

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"html"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

// The pages on which a person confirms a payment: P16 to P18.
//
// They show the stored record and nothing of the request. What was shown comes back with the answer, is compared with the record before the code is looked at, and is kept with the decision.

const confirmPath = "/confirm"

// confirmWords names the page and the version of its wording, for the evidence. A text that says something else is another version.
const confirmWords = "confirm.2"

func (h *Handler) confirmPages() map[string]func(http.ResponseWriter, *http.Request) error {
	if h.Payments == nil {
		return nil
	}
	return map[string]func(http.ResponseWriter, *http.Request) error{
		"GET " + confirmPath: h.getConfirm, "POST " + confirmPath: h.postPay, "POST " + confirmPath + "/code": h.postConfirmCode,
		"POST " + confirmPath + "/report": h.postReport, "POST " + confirmPath + "/back": h.postBack, "GET " + confirmPath + "/state": h.getConfirmState,
	}
}

// paying is a payment that somebody is asked to confirm.
type paying struct {
	*transaction.Transaction
	progress *authn.Progress // of a sign-in that goes on; only its SignIn is set where that is over
	over     bool            // nothing can be answered any more, only read
	cookie   authn.Cookie
}

func (p *paying) in() *authn.SignIn { return p.progress.SignIn }

// holder is who alone may answer: this session, or where the application waits elsewhere, the application.
func (p *paying) holder() uuid.UUID {
	if p.Door == transaction.DoorCIBA {
		return uuid.Nil
	}
	return p.in().Session.ID
}

// asked is the payment that a sign-in asks about; uuid.Nil: none was created yet.
func asked(in *authn.SignIn) uuid.UUID {
	if in.Requirement.Backchannel != nil {
		return in.Requirement.Backchannel.Transaction
	}
	return in.Transaction
}

// toConfirm leads to the page. Whoever has just sent a form, such as a code for the sign-in, has the text sent right away; a page that is merely opened sends nothing.
func (h *Handler) toConfirm(w http.ResponseWriter, r *http.Request, p *authn.Progress, cookie authn.Cookie) error {
	if r.Method == http.MethodPost && asked(p.SignIn) == uuid.Nil {
		if err := h.ask(r, p, cookie, false); err != nil && !unready(err) {
			return err
		}
	}
	redirect(w, address(confirmPath, p.SignIn.ID))
	return nil
}

// ask creates the transaction of a sign-in. Its errors are those of transaction.Service.Create.
func (h *Handler) ask(r *http.Request, p *authn.Progress, cookie authn.Cookie, later bool) error {
	in := p.SignIn
	if h.Payments == nil || len(in.Requirement.Details) != 1 {
		return errors.New("web: a payment is to be confirmed, and there is none")
	}
	order, err := h.Orders.Order(json.RawMessage(in.Requirement.Details[0].Content))
	if err != nil {
		return err
	}
	order.Locale = h.texts.pick(r, in.Locales).tag.String()
	_, err = h.Payments.Create(r.Context(), transaction.Request{
		Order: order, Client: in.RelyingParty.ID, User: transaction.User{Subscriber: in.Session.Subscriber}, Door: transaction.DoorPage, Holder: in.Session.ID, App: in.RelyingParty.AppHash, Later: later,
		Able:  func(q *postgres.Query) string { return h.SignIns.HoldSignIn(q, in, cookie, true) },
		Along: func(q *postgres.Query, created string) { h.SignIns.Ask(q, in, created) },
	})
	return err
}

// unready reports why nobody can be asked now. A transaction that another tab has created is none of the reasons: ErrOver leads on to it.
func unready(err error) bool {
	_, hold := errors.AsType[*transaction.HoldError](err)
	_, blocked := errors.AsType[*factors.BlockedError](err)
	return hold || blocked || slices.ContainsFunc([]error{transaction.ErrNoPhone, transaction.ErrHeldBack, transaction.ErrTooMany, transaction.ErrUser, transaction.ErrOver}, func(one error) bool { return errors.Is(err, one) })
}

// payment reads which payment a request is about. It gives nil when it has led elsewhere, and a transaction that is nil when none could be created.
func (h *Handler) payment(w http.ResponseWriter, r *http.Request) (*paying, error) {
	v, err := h.open(r)
	if err != nil {
		return nil, err
	}
	p, err := h.SignIns.Load(r.Context(), v.cookie, v.flow)
	now := &paying{progress: p, cookie: v.cookie}
	switch {
	case errors.Is(err, authn.ErrSignInOver):
		in, err := h.SignIns.Past(r.Context(), v.cookie, v.flow)
		if err != nil {
			return nil, err
		}
		now.progress, now.over = &authn.Progress{SignIn: in}, true
	case err != nil:
		return nil, err
	case p.Decision.Step != authn.StepConfirm:
		return nil, h.Next(w, r, p, v.cookie)
	case asked(p.SignIn) == uuid.Nil:
		return now, nil
	case p.SignIn.Transaction == uuid.Nil: // it was created before somebody signed in to answer it
		if err := h.SignIns.Asked(r.Context(), p.SignIn, v.cookie); err != nil {
			return nil, err
		}
	}
	now.Transaction, err = h.Payments.GetWithText(r.Context(), now.in().RelyingParty.ID, asked(now.in()))
	if err == nil && now.over && now.State == transaction.Pending {
		return nil, authn.ErrSignInOver // it expires by itself
	}
	return now, err
}

func (h *Handler) getConfirm(w http.ResponseWriter, r *http.Request) error {
	p, err := h.payment(w, r)
	if p == nil {
		return err
	}
	if p.Transaction == nil {
		switch err := h.ask(r, p.progress, p.cookie, true); {
		case unready(err) && !errors.Is(err, transaction.ErrOver):
			return h.unready(w, r, p.progress, err)
		case err != nil && !errors.Is(err, transaction.ErrOver):
			return err
		}
		if p, err = h.payment(w, r); p == nil {
			return err
		}
		if p.Transaction == nil {
			return authn.ErrSignInOver
		}
	}
	if p.State != transaction.Pending {
		return h.confirmed(w, r, p)
	}
	return h.pay(w, r, p, http.StatusOK, nil)
}

// fact is one line of what is paid.
type fact struct {
	Term  template.HTML
	Value string
	LTR   bool // a number, written from left to right in every script
}

// confirmBody is what P16 shows besides its frame.
type confirmBody struct {
	Message                       string // that the application shows as well, where it waits elsewhere
	Facts                         []fact
	Label, Approve                template.HTML
	Sent, Ask, Until, Wait, Reach template.HTML
	Live, CanSend                 bool
	ExpiresAt, Slow               string // for scripts
	Amount, Currency, Record      string // what is shown, and comes back with the answer
	Payees                        []string
}

// message is what the application shows as well.
func message(in *authn.SignIn) string {
	if in.Requirement.Backchannel == nil {
		return ""
	}
	return in.Requirement.Backchannel.Message
}

// facts are the lines of a record, with nothing cut off but what is masked.
func (f *frame) facts(t *transaction.Transaction) (all []fact) {
	all = append(all, fact{f.T("confirm.amount"), sms.FormatAmount(t.Amount, t.Currency, f.Lang), true})
	for i := range t.Payees {
		all = append(all, fact{f.T("confirm.to"), t.Payees[i].Name, false})
		if masked := t.Payees[i].Masked(); masked != "" {
			all = append(all, fact{f.T("confirm.account"), masked, true})
		}
	}
	if t.Reference != "" {
		all = append(all, fact{f.T("confirm.reference"), t.Reference, false})
	}
	return all
}

// verb is the text of a group of texts that have one for each type of transaction.
func (f *frame) verb(t *transaction.Transaction, payment, transfer, order, debit string) template.HTML {
	switch t.Type {
	case "transfer":
		return f.T(transfer)
	case "standing_order":
		return f.T(order)
	case "direct_debit":
		return f.T(debit)
	}
	return f.T(payment)
}

// reach says where people call; "" when nobody said.
func (f *frame) reach(rp *authn.RelyingParty) template.HTML {
	if rp.Phone == "" {
		return ""
	}
	return f.say.say("confirm.call", values{"Client": rp.Name, "Phone": template.HTML(`<bdi dir="ltr">` + template.HTMLEscapeString(rp.Phone) + `</bdi>`)}) //nolint:gosec // escaped
}

func (h *Handler) confirmFrame(r *http.Request, p *paying) *frame {
	f := h.page(r, p.in(), "confirm")
	f.Cancel, f.HomeURI = "", "" // the ways out are those that tell the bank
	f.Over = f.Client
	f.Title = f.verb(p.Transaction, "confirm.title", "confirm.title_transfer", "confirm.title_standing_order", "confirm.title_direct_debit")
	return f
}

// label says what the code is for.
func (f *frame) label(t *transaction.Transaction) template.HTML {
	fill := values{"Amount": sms.FormatAmount(t.Amount, t.Currency, f.Lang), "Payee": t.Payees[0].Name}
	if len(t.Payees) > 1 {
		fill["Count"] = len(t.Payees)
		return f.say.say("confirm.label_many", fill)
	}
	return f.say.say("confirm.label", fill)
}

// shown is what the page says of the payment, as people read it, for the evidence.
func (f *frame) shown(p *paying) *transaction.Shown {
	t := p.Transaction
	lines := []string{f.Over, plain(f.verb(t, "confirm.title", "confirm.title_transfer", "confirm.title_standing_order", "confirm.title_direct_debit"))}
	for _, fact := range f.facts(t) {
		lines = append(lines, plain(fact.Term)+": "+fact.Value)
	}
	if message := message(p.in()); message != "" {
		lines = append(lines, plain(f.TC("confirm.message"))+" "+message)
	}
	lines = append(lines, plain(f.T("confirm.differs")), plain(f.label(t)))
	return &transaction.Shown{Channel: "page", Text: strings.Join(lines, "\n"), Locale: f.Lang, Template: confirmWords}
}

// plain is a text without what HTML writes otherwise.
func plain(text template.HTML) string { return html.UnescapeString(string(text)) }

// pay renders P16 as the challenge stands, with what is wrong about the last answer.
func (h *Handler) pay(w http.ResponseWriter, r *http.Request, p *paying, status int, wrong *fault) error {
	f, in, c := h.confirmFrame(r, p), p.in(), p.Challenge
	body := confirmBody{Message: message(in),
		Facts: f.facts(p.Transaction), Label: f.label(p.Transaction), Reach: f.reach(&in.RelyingParty), Amount: p.Amount, Currency: p.Currency,
		Record: base64.RawURLEncoding.EncodeToString(p.Hash), ExpiresAt: p.ExpiresAt.UTC().Format(time.RFC3339),
		Approve: f.verb(p.Transaction, "confirm.approve", "confirm.approve_transfer", "confirm.approve_standing_order", "confirm.approve_direct_debit"),
		Until:   f.say.say("confirm.until", values{"Time": f.say.clock(p.ExpiresAt)}),
	}
	for _, payee := range p.Payees {
		body.Payees = append(body.Payees, payee.Name)
	}
	var problem template.HTML
	switch {
	case c == nil || !c.Live(in.Now) && c.BlockedUntil == nil:
		problem = f.TC("confirm.over")
	case c.BlockedUntil == nil && c.Sends == 0 && (c.NextSendAt == nil || !c.NextSendAt.After(in.Now)):
		body.CanSend, body.Ask = true, f.say.say("confirm.ask", values{"Hint": h.hint(in, c.AuthenticatorID)})
	default:
		problem, f.Notice = h.codeState(f.say, &authn.SignIn{Challenge: c, Now: in.Now})
		body.Live, body.CanSend = c.BlockedUntil == nil && c.Sends > 0, c.BlockedUntil == nil
		body.Sent = f.say.say("confirm.sent", values{"Hint": h.hint(in, c.AuthenticatorID)})
		if c.NextSendAt != nil && c.NextSendAt.After(in.Now) && c.Sends > 0 {
			body.Wait = f.say.say("send.wait", values{"Count": int(c.NextSendAt.Sub(in.Now).Seconds()) + 1})
		}
		if c.SentAt != nil {
			body.Slow = c.SentAt.Add(slowAfter).UTC().Format(time.RFC3339)
		}
		if status == http.StatusOK && c.BlockedUntil != nil {
			f.retryAfter = retry(in.Now, *c.BlockedUntil)
		}
	}
	switch {
	case wrong != nil && (body.Live || wrong.Field != "code"):
		f.Errors = []fault{*wrong}
	case problem != "":
		f.Errors = []fault{{"send", problem}}
	}
	f.Body = body
	return h.render(w, r, status, "confirm", f)
}

// hint is what the phone ends in.
func (h *Handler) hint(in *authn.SignIn, authenticator uuid.UUID) template.HTML {
	for _, a := range in.Session.Bound {
		if a.ID == authenticator {
			return template.HTML("<strong><bdi>" + template.HTMLEscapeString(a.Hint) + "</bdi></strong>") //nolint:gosec // escaped
		}
	}
	return ""
}

// answered is a form of P16. It gives nil when it has led elsewhere: to how the payment ended, where it did.
func (h *Handler) answered(w http.ResponseWriter, r *http.Request, ended bool) (*paying, url.Values, error) {
	v, err := h.posted(w, r)
	if err != nil {
		return nil, nil, err
	}
	p, err := h.payment(w, r)
	if p == nil {
		return nil, nil, err
	}
	if !h.proven(v.form, p.in().Session.ID, v.flow, "confirm") {
		return nil, nil, errProof
	}
	if p.Transaction == nil || !ended && p.State != transaction.Pending {
		redirect(w, address(confirmPath, v.flow))
		return nil, nil, nil
	}
	return p, v.form, nil
}

// again reads how things stand after p was answered, and shows it.
func (h *Handler) again(w http.ResponseWriter, r *http.Request, p *paying, status int, wrong func(*paying) *fault) error {
	flow := p.in().ID
	now, err := h.payment(w, r)
	if now == nil {
		return err
	}
	if now.State != transaction.Pending {
		redirect(w, address(confirmPath, flow))
		return nil
	}
	return h.pay(w, r, now, status, wrong(now))
}

// postPay takes the answer: a code that approves, or a refusal.
func (h *Handler) postPay(w http.ResponseWriter, r *http.Request) error {
	p, form, err := h.answered(w, r, false)
	if p == nil {
		return err
	}
	in, f := p.in(), h.confirmFrame(r, p)
	shown := f.shown(p)
	if form.Get("answer") == "refuse" {
		_, err := h.Payments.Refuse(r.Context(), p.Client, p.ID, transaction.Outcome{Holder: in.Session.ID, Page: shown})
		if err != nil && !errors.Is(err, transaction.ErrDecided) {
			return err
		}
		redirect(w, address(confirmPath, in.ID))
		return nil
	}
	completion, err := h.completion(w, r, p)
	if completion == nil {
		return err
	}
	d := &p.progress.Decision
	_, err = h.Payments.Approve(r.Context(), p.Client, p.ID, transaction.Answer{
		Code: form.Get("code"), Repeat: repeated(p.Transaction, form), Holder: p.holder(), Before: &transaction.Proof{ACR: completion.ACR, AMR: d.AMR(), AuthTime: d.AuthTime},
		Page: shown, Able: completion.Able, Along: completion.Along,
	})
	ids := map[error]string{factors.ErrCodeEmpty: "code.empty", factors.ErrCodeShort: "code.short", factors.ErrCodeLong: "code.long", factors.ErrCodeChars: "code.chars"}
	for typed, id := range ids {
		if errors.Is(err, typed) {
			return h.pay(w, r, p, http.StatusUnprocessableEntity, &fault{"code", f.T(id)})
		}
	}
	blocked, isBlocked := errors.AsType[*factors.BlockedError](err)
	switch {
	case err == nil:
		completion.Answer(w, r)
		return nil
	case errors.Is(err, transaction.ErrMismatch), errors.Is(err, transaction.ErrDecided), errors.Is(err, transaction.ErrOver):
		redirect(w, address(confirmPath, in.ID))
		return nil
	case isBlocked:
		w.Header().Set("Retry-After", retry(in.Now, blocked.Until))
		return h.again(w, r, p, http.StatusTooManyRequests, func(*paying) *fault {
			return &fault{"send", f.say.say("login.rate", values{"Time": f.say.clock(blocked.Until)})}
		})
	case errors.Is(err, factors.ErrMismatch):
		return h.again(w, r, p, http.StatusUnprocessableEntity, func(now *paying) *fault {
			wrong := fault{"code", f.T("code.wrong")}
			if now.Challenge != nil && now.Challenge.AttemptsLeft() <= 3 {
				wrong.Text = f.say.say("code.wrong_left", values{"Count": now.Challenge.AttemptsLeft()})
			}
			return &wrong
		})
	}
	return err
}

// completion says what the approval completes: the sign-in. Where the application waits elsewhere, it learns of the approval by the approval itself, and the browser stays here.
func (h *Handler) completion(w http.ResponseWriter, r *http.Request, p *paying) (*authn.Completion, error) {
	if p.Door != transaction.DoorCIBA {
		return h.Completer.Completion(w, r, p.progress, p.cookie, p.ID)
	}
	in := p.in()
	return &authn.Completion{
		ACR:    h.Completer.Told(p.progress),
		Able:   func(q *postgres.Query) string { return h.SignIns.HoldSignIn(q, in, p.cookie, false) },
		Along:  func(q *postgres.Query, approved string) { h.SignIns.CompleteAfter(q, in, p.cookie, approved) },
		Answer: func(w http.ResponseWriter, r *http.Request) { redirect(w, address(confirmPath, in.ID)) },
	}, nil
}

// repeated is what the page that the answer comes from had shown. The account is masked there, hence it is told by the hash of the whole record.
func repeated(t *transaction.Transaction, form url.Values) *transaction.Repeat {
	again := &transaction.Repeat{Amount: form.Get("amount"), Currency: form.Get("currency")}
	if form.Get("record") != base64.RawURLEncoding.EncodeToString(t.Hash) {
		return again
	}
	for i, payee := range t.Payees {
		payee.Name = form.Get("payee-" + strconv.Itoa(i))
		again.Payees = append(again.Payees, payee)
	}
	shown := 0
	for name := range form {
		if strings.HasPrefix(name, "payee-") {
			shown++
		}
	}
	if shown != len(t.Payees) {
		again.Payees = nil
	}
	return again
}

// postConfirmCode sends the code, for the first time or again.
func (h *Handler) postConfirmCode(w http.ResponseWriter, r *http.Request) error {
	p, _, err := h.answered(w, r, false)
	if p == nil {
		return err
	}
	in, f := p.in(), h.confirmFrame(r, p)
	_, err = h.Payments.Resend(r.Context(), p.Client, p.ID, p.holder(), in.RelyingParty.AppHash)
	wait, isWait := errors.AsType[*factors.WaitError](err)
	switch {
	case err == nil, errors.Is(err, transaction.ErrOver), errors.Is(err, transaction.ErrDecided):
		redirect(w, address(confirmPath, in.ID))
		return nil
	case errors.Is(err, transaction.ErrHeldBack):
		return h.pay(w, r, p, http.StatusUnprocessableEntity, &fault{"send", f.T("confirm.held")})
	case !isWait:
		return err
	}
	wrong := fault{"send", f.say.say("send.wait", values{"Count": int(wait.Until.Sub(in.Now).Seconds()) + 1})}
	switch {
	case wait.UsedUp:
		wrong.Text = f.T("send.used_up")
	case wait.Limited:
		wrong.Text = f.say.say("send.limit", values{"Time": f.say.clock(wait.Until)})
	}
	if !wait.UsedUp {
		w.Header().Set("Retry-After", retry(in.Now, wait.Until))
	}
	return h.pay(w, r, p, http.StatusTooManyRequests, &wrong)
}

// postReport is «I didn't ask for this»: the payment is stopped if it still can be, whatever else is open of the person ends, and so does this session.
func (h *Handler) postReport(w http.ResponseWriter, r *http.Request) error {
	p, _, err := h.answered(w, r, true)
	if p == nil {
		return err
	}
	in := p.in()
	_, err = h.Payments.Report(r.Context(), p.Client, p.ID, transaction.Outcome{
		Holder: in.Session.ID, Page: h.confirmFrame(r, p).shown(p),
		Along: func(q *postgres.Query, _ string) { h.Completer.SignOutWith(r.Context(), q, p.cookie, "fraud_reported") },
	})
	if err != nil && !errors.Is(err, transaction.ErrDecided) {
		return err
	}
	redirect(w, address(confirmPath, in.ID))
	return nil
}

// getConfirmState tells a script that waits what became of the message, and of the payment. It changes nothing.
func (h *Handler) getConfirmState(w http.ResponseWriter, r *http.Request) error {
	v, err := h.open(r)
	if err != nil {
		return err
	}
	in, err := h.SignIns.Past(r.Context(), v.cookie, v.flow)
	if err != nil {
		return err
	}
	t, err := h.Payments.GetWithText(r.Context(), in.RelyingParty.ID, asked(in))
	if err != nil {
		return err
	}
	problem, notice := h.codeState(h.texts.pick(r, in.Locales), &authn.SignIn{Challenge: t.Challenge, Now: in.Now})
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	return json.NewEncoder(w).Encode(map[string]any{"problem": problem != "", "notice": notice != "", "due": t.State == transaction.Pending})
}

// ---------------------------------------------------------------- P17 and P18, how it ended

type confirmedBody struct {
	Facts           []fact
	Next, Reach     template.HTML
	Name            string // of the transaction
	CanReport, Back bool
}

// ending is how a transaction ended, in words: title and what happens next.
func (f *frame) ending(t *transaction.Transaction) (title, next template.HTML) {
	switch {
	case t.State == transaction.Reported, !t.ReportedAt.IsZero() && t.State != transaction.Approved:
		return f.T("confirm.reported"), f.TC("confirm.reported_next")
	case !t.ReportedAt.IsZero():
		return f.TC("confirm.reported_late"), f.TC("confirm.reported_late_next")
	case t.State == transaction.Approved:
		return f.T("confirm.approved"), f.TC("confirm.approved_next")
	case t.State == transaction.Refused:
		return f.T("confirm.refused"), f.TC("confirm.refused_next")
	case t.State == transaction.Expired:
		return f.T("confirm.expired"), f.TC("confirm.expired_next")
	case t.State == transaction.Failed && t.Reason == transaction.ReasonAttempts:
		return f.T("confirm.failed"), f.TC("confirm.failed_next")
	case t.State == transaction.Canceled && t.Reason == transaction.ReasonSuspended:
		return f.T("confirm.suspended"), f.TC("confirm.suspended_next")
	}
	return f.T("confirm.changed"), f.TC("confirm.changed_next") // by the bank, or on the way
}

func (h *Handler) confirmed(w http.ResponseWriter, r *http.Request, p *paying) error {
	f := h.confirmFrame(r, p)
	body := confirmedBody{Facts: f.facts(p.Transaction), Reach: f.reach(&p.in().RelyingParty), Name: transaction.PublicID(p.ID)}
	f.Title, body.Next = f.ending(p.Transaction)
	if body.Back = p.State != transaction.Approved; !body.Back { // the application was told when it was approved
		f.HomeURI, body.CanReport = p.in().RelyingParty.HomeURI, p.ReportedAt.IsZero()
	}
	f.Body = body
	return h.render(w, r, http.StatusOK, "confirmed", f)
}

// unready says why nobody can be asked now.
func (h *Handler) unready(w http.ResponseWriter, r *http.Request, p *authn.Progress, err error) error {
	f := h.page(r, p.SignIn, "confirm")
	f.Title, f.Cancel, f.HomeURI, f.Over = f.T("confirm.unready"), "", "", f.Client
	hold, isHold := errors.AsType[*transaction.HoldError](err)
	blocked, isBlocked := errors.AsType[*factors.BlockedError](err)
	body := struct{ Why, Reach template.HTML }{f.T("confirm.no_phone"), f.reach(&p.SignIn.RelyingParty)}
	switch {
	case isHold:
		body.Why = f.say.say("confirm.new_phone", values{"Time": f.say.moment(hold.Until)})
	case errors.Is(err, transaction.ErrHeldBack):
		body.Why = f.T("confirm.held")
	case errors.Is(err, transaction.ErrTooMany):
		body.Why = f.T("confirm.too_many")
	case isBlocked && limits.Endless(blocked.Until):
		body.Why = f.TC("code.closed")
	case isBlocked:
		f.retryAfter = retry(p.SignIn.Now, blocked.Until)
		body.Why = f.say.say("code.locked", values{"Time": f.say.clock(blocked.Until)})
	}
	f.Body = body
	return h.render(w, r, http.StatusOK, "unready", f)
}

// postBack leads back to the application, which is told that it has no approval, and why.
func (h *Handler) postBack(w http.ResponseWriter, r *http.Request) error {
	v, err := h.posted(w, r)
	if err != nil {
		return err
	}
	p, err := h.payment(w, r)
	if p == nil {
		return err
	}
	if !h.proven(v.form, p.in().Session.ID, v.flow, "confirm") {
		return errProof
	}
	failure := authn.AccessDenied
	switch {
	case p.Transaction == nil:
		failure = authn.Unmet
	case p.State == transaction.Pending, p.State == transaction.Approved:
		redirect(w, address(confirmPath, v.flow))
		return nil
	default:
		p.progress.Decision.Detail = p.State.Refusal()
	}
	return h.App.Refuse(w, r, p.progress, p.cookie, failure)
}
