package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/oauth2"

	"github.com/watchword-auth/watchword/authn/backchannel"
	"github.com/watchword-auth/watchword/oidc"
)

// What people and applications do while the server is killed: see [TestKilled].

var (
	lineWithCode = regexp.MustCompile(`#(\d{6})\s*$`)
	lineWithLink = regexp.MustCompile(`(?m)^https?://\S+/recover/link\?\S+$`)
	anyTag       = regexp.MustCompile(`<[^>]*>`)
	anyWay       = regexp.MustCompile(`name="way" value="([^"]*)"`)
)

// amount is one that no other payment of p has, so that texts are told apart.
func (p *soul) amount() string {
	p.stories++
	return fmt.Sprintf("%d.%02d", 100+p.stories/100, p.stories%100)
}

// notified is what the application was told about a transaction.
type notified struct {
	ID     string `json:"id"`
	Status any    `json:"status"` // of a problem a number
	Code   string `json:"code"`   // of a problem
	Result string `json:"result"`
}

func (t *notified) is(state string) string {
	return fmt.Sprintf("(SELECT state FROM transactions WHERE id = '%s'::uuid) = '%s'", strings.TrimPrefix(t.ID, "txn_"), state)
}

const payee = `"payee":{"name":"Gas AG","account":"DE02100100109307118603"}`

// payment is a story of the bank's own page, which ends with the given steps.
func (p *soul) payment(end func(token *string, made *notified, amount string) []step) *story {
	amount, key := p.amount(), uuid.NewString()
	token, made := new(string), new(notified)
	return &story{steps: append([]step{
		{"token", func(bool) error {
			var got struct {
				Token string `json:"access_token"`
			}
			if err := p.fresh(); err != nil {
				return err
			}
			err := p.ask("/oauth/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"transactions"}}, &got)
			*token = got.Token
			return err
		}},
		{"create", func(doubt bool) error {
			before := 0
			if doubt {
				if err := p.m.look(&before, "SELECT count(*) FROM transactions WHERE subscriber_id = $1 AND state = 'pending'", p.id); err != nil {
					return err
				}
				p.m.doubted("create", before > 0)
			}
			body := fmt.Sprintf(`{"user":%q,"amount":%q,"currency":"EUR",%s}`, p.subject, amount, payee)
			if err := p.api(http.MethodPost, "/v1/transactions", *token, key, body, made); err != nil {
				return err
			}
			return p.answered("create", p.status == http.StatusCreated && made.ID != "", fmt.Sprintf("EXISTS (SELECT FROM transactions WHERE id = '%s'::uuid)", strings.TrimPrefix(made.ID, "txn_")))
		}},
	}, end(token, made, amount)...)}
}

// read is the last gate before a payment is executed.
func (p *soul) read(token *string, made *notified, state string, result *string) step {
	return step{"read", func(bool) error {
		now := new(notified)
		if err := p.api(http.MethodGet, "/v1/transactions/"+made.ID, *token, "", "", now); err != nil {
			return err
		}
		ok := p.status == http.StatusOK && now.Status == state && (now.Result != "") == (state == "approved")
		if result != nil && *result != "" {
			ok = ok && payloadOf(now.Result) == payloadOf(*result)
		}
		return p.wants("read", ok)
	}}
}

// payloadOf is what a JWS says, which is the same however often it is signed.
func payloadOf(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return token
	}
	return parts[1]
}

// pays approves a payment by giving its code back to the bank.
func (p *soul) pays() *story {
	return p.payment(func(token *string, made *notified, amount string) []step {
		var code string
		result, key := new(string), ""
		if p.stories%2 == 0 {
			key = uuid.NewString()
		}
		return []step{
			{"text", func(bool) (err error) {
				code, err = p.code(amount)
				return err
			}},
			{"verify", func(doubt bool) error {
				got := new(notified)
				if err := p.api(http.MethodPost, "/v1/transactions/"+made.ID+"/verify", *token, key, fmt.Sprintf(`{"code":%q,"amount":%q,"currency":"EUR",%s}`, code, amount, payee), got); err != nil {
					return err
				}
				if doubt && key == "" && got.Code == "already_decided" {
					p.m.doubted("verify", true)
					return nil
				}
				if doubt && key == "" {
					p.m.doubted("verify", false)
				}
				*result = got.Result
				return p.answered("verify", p.status == http.StatusOK && got.Status == "approved" && got.Result != "", made.is("approved"))
			}},
			p.read(token, made, "approved", result),
			{"verify again", func(bool) error { // TX-5
				got := new(notified)
				if err := p.api(http.MethodPost, "/v1/transactions/"+made.ID+"/verify", *token, "", fmt.Sprintf(`{"code":%q,"amount":%q,"currency":"EUR",%s}`, code, amount, payee), got); err != nil {
					return err
				}
				return p.wants("verify again", got.Code == "already_decided" && got.Result == "")
			}},
		}
	})
}

// takesBack has the bank take its payment back.
func (p *soul) takesBack() *story {
	return p.payment(func(token *string, made *notified, _ string) []step {
		return []step{{"cancel", func(doubt bool) error {
			got := new(notified)
			if err := p.api(http.MethodPost, "/v1/transactions/"+made.ID+"/cancel", *token, "", "{}", got); err != nil {
				return err
			}
			if doubt {
				p.m.doubted("cancel", p.status != http.StatusOK)
			}
			return p.answered("cancel", p.status == http.StatusOK && got.Status == "canceled" || doubt && p.status == http.StatusConflict, made.is("canceled"))
		}}, p.read(token, made, "canceled", nil)}
	})
}

// background is a story of a payment that is asked for in the background. answer fills in the page; the application is then told error, or has tokens.
func (p *soul) background(state, refused string, answer func(amount string) error) *story {
	amount := p.amount()
	var asked struct {
		RequestID string `json:"auth_req_id"`
	}
	var question struct {
		ID          uuid.UUID `db:"id"`
		Transaction uuid.UUID `db:"transaction_id"`
	}
	stands := func() (now string, err error) {
		err = p.m.look(&now, "SELECT state FROM transactions WHERE id = $1", question.Transaction)
		return now, err
	}
	poll := func() (code string, tokens bool, err error) {
		var got struct {
			Error string `json:"error"`
			Token string `json:"access_token"`
		}
		err = p.ask("/oauth/token", url.Values{"grant_type": {string(oidc.GrantTypeCIBA)}, "auth_req_id": {asked.RequestID}}, &got)
		return got.Error, got.Token != "", err
	}
	return &story{steps: []step{
		{"ask", func(bool) error {
			if p.client == nil {
				if err := p.fresh(); err != nil {
					return err
				}
			}
			details := fmt.Sprintf(`[{"type":"payment_initiation","instructedAmount":{"currency":"EUR","amount":%q},"creditorName":"Gas AG","creditorAccount":{"iban":"DE02100100109307118603"}}]`, amount)
			if err := p.ask("/bc-authorize", url.Values{"scope": {"openid"}, "login_hint": {p.name}, "authorization_details": {details}}, &asked); err != nil {
				return err
			}
			if err := p.answered("ask", p.status == http.StatusOK, fmt.Sprintf("EXISTS (SELECT FROM backchannel_requests WHERE hash = sha256('%s'))", asked.RequestID)); err != nil {
				return err
			}
			return p.m.look(&question, "SELECT id, transaction_id FROM backchannel_requests WHERE hash = sha256($1)", []byte(asked.RequestID))
		}},
		{"poll", func(doubt bool) error {
			code, _, err := poll()
			if err != nil {
				return err
			}
			return p.wants("poll", code == "authorization_pending" || doubt && code == "slow_down")
		}},
		{"answer", func(doubt bool) error {
			if doubt {
				now, err := stands()
				if err != nil {
					return err
				}
				p.m.doubted("answer with "+state, now == state)
				if now != "pending" {
					return p.wants("answer in doubt is "+now, now == state)
				}
				if err := p.fresh(); err != nil { // a sign-in that was half done is left
					return err
				}
			}
			if err := p.open(backchannel.Path(question.ID)); err != nil {
				return err
			}
			if err := p.wander(); err != nil {
				return err
			}
			if err := answer(amount); err != nil {
				return err
			}
			return p.answered("answer", p.status == http.StatusOK, fmt.Sprintf("(SELECT state FROM transactions WHERE id = '%s') = '%s'", question.Transaction, state))
		}},
		{"redeem", func(doubt bool) error {
			code, tokens, err := poll()
			if err != nil {
				return err
			}
			if refused != "" {
				return p.wants("poll after a refusal", code == refused)
			}
			if doubt {
				p.m.doubted("redeem", code == "invalid_grant")
			}
			return p.answered("redeem", tokens || doubt && code == "invalid_grant", fmt.Sprintf("(SELECT redeemed_at FROM backchannel_requests WHERE id = '%s') IS NOT NULL", question.ID))
		}},
		{"redeem again", func(bool) error {
			code, _, err := poll()
			if err != nil {
				return err
			}
			return p.wants("redeem again", code == refused || refused == "" && code == "invalid_grant")
		}},
	}}
}

// approves a payment on a page of ours, while the application waits.
func (p *soul) approves() *story {
	code := ""
	return p.background("approved", "", func(amount string) error {
		for range 3 { // a payment that was asked for twice has two texts, of which one is good
			if code == "" {
				found, err := p.code(amount)
				if err != nil {
					return err
				}
				code = found
			}
			if err := p.submit("/confirm", url.Values{"answer": {"approve"}, "code": {code}}); err != nil || p.status != http.StatusUnprocessableEntity {
				return err
			}
			code = ""
		}
		return p.wants("approve", false)
	})
}

// declines a payment there, or says that nobody asked for it.
func (p *soul) declines() *story {
	if p.stories%2 == 0 {
		return p.background("refused", "access_denied", func(string) error { return p.submit("/confirm", url.Values{"answer": {"refuse"}}) })
	}
	return p.background("reported", "access_denied", func(string) error { return p.submit("/confirm/report", nil) })
}

// begun begins a recovery at path, and follows the link.
func (p *soul) begun(path string) []step {
	link := ""
	return []step{
		{"start", func(bool) error {
			if err := p.fresh(); err != nil {
				return err
			}
			if err := p.open(path); err != nil {
				return err
			}
			if err := p.submit(path, url.Values{"username": {p.name}, "channel": {"mail"}}); err != nil {
				return err
			}
			return p.wants("start", p.at.Path == "/recover/check")
		}},
		{"link", func(bool) (err error) {
			link, err = p.link()
			return err
		}},
		{"proof by mail", func(doubt bool) error {
			for {
				if err := p.open(strings.TrimPrefix(link, p.m.issuer)); err != nil {
					return err
				}
				if doubt {
					p.m.doubted("proof by mail", p.status == http.StatusGone)
				}
				if p.status == http.StatusOK {
					if err := p.submit("/recover/link", nil); err != nil {
						return err
					}
				}
				switch {
				case p.status == http.StatusOK:
					return p.wants("proof by mail", p.at.Path == "/recover/password" || p.at.Path == "/recover/ways")
				case p.status != http.StatusGone:
					return p.wants("proof by mail", false)
				case doubt: // it was used, and what came of it went to nobody
					return errLost
				}
				newer, err := p.link() // of a try that a second one has ended, when the start was in doubt
				if err != nil {
					return err
				}
				link = newer
			}
		}},
	}
}

// recovered is a condition: so many of p's recoveries have finished as p has heard of.
func (p *soul) recovered(kind string) string {
	p.ends++
	return fmt.Sprintf("(SELECT count(*) FROM recoveries WHERE subscriber_id = '%s' AND kind = '%s' AND state = 'finished') >= %d", p.id, kind, p.ends)
}

// forgets a password, and sets another.
func (p *soul) forgets() *story {
	p.stories++
	password := fmt.Sprintf("seven brown horses in boat %d", p.stories)
	return &story{steps: append(p.begun("/recover"), step{"password", func(doubt bool) error {
		if err := p.open("/recover/password"); err != nil {
			return err
		}
		if doubt {
			p.m.doubted("password", p.at.Path == "/recover/done")
		}
		if p.at.Path != "/recover/done" {
			if err := p.submit("/recover/password", url.Values{"password": {password}}); err != nil {
				return err
			}
		}
		p.password = password
		return p.answered("password", p.at.Path == "/recover/done", p.recovered("password"))
	}}, step{"sign in with it", func(bool) error {
		if err := p.fresh(); err != nil {
			return err
		}
		if err := p.open("/account"); err != nil {
			return err
		}
		if err := p.submit("/login", url.Values{"username": {p.name}, "password": {p.password}}); err != nil {
			return err
		}
		return p.wants("sign in", p.at.Path == "/login/code")
	}})}
}

// loses a factor, gives two proofs, and repairs the account.
func (p *soul) loses() *story {
	p.stories++
	code := ""
	return &story{steps: append(p.begun("/recover/access"),
		step{"ways", func(bool) error {
			if err := p.open("/recover/ways"); err != nil {
				return err
			}
			if p.at.Path == "/recover/check" { // it was asked for
				return nil
			}
			way := anyWay.FindStringSubmatch(p.body)
			if way == nil {
				return p.wants("ways", false)
			}
			if err := p.submit("/recover/ways", url.Values{"way": {way[1]}}); err != nil {
				return err
			}
			return p.wants("ways", p.at.Path == "/recover/check")
		}},
		step{"text", func(bool) (err error) {
			code, err = p.code("")
			return err
		}},
		step{"proof by text", func(doubt bool) error {
			if err := p.open("/recover/check"); err != nil {
				return err
			}
			if doubt {
				p.m.doubted("proof by text", p.status == http.StatusGone || p.at.Path == "/recover/repair")
			}
			switch {
			case p.at.Path == "/recover/repair": // what was lost was only the page after it
				return nil
			case doubt && p.status == http.StatusGone: // the cookie that it gave was
				return errLost
			}
			for range 3 { // ways that were asked for twice sent two, of which one is good
				if err := p.submit("/recover/check", url.Values{"code": {code}}); err != nil || p.status != http.StatusUnprocessableEntity {
					return errors.Join(err, p.wants("proof by text", err != nil || p.at.Path == "/recover/repair"))
				}
				other, err := p.code("")
				if err != nil {
					return err
				}
				code = other
			}
			return p.wants("proof by text", p.at.Path == "/recover/repair")
		}},
		step{"finish", func(doubt bool) error {
			if err := p.open("/recover/repair"); err != nil {
				return err
			}
			if doubt {
				p.m.doubted("finish", p.at.Path == "/recover/done")
			}
			if p.at.Path != "/recover/done" {
				if err := p.submit("/recover/repair", nil); err != nil {
					return err
				}
			}
			return p.answered("finish", p.at.Path == "/recover/done", p.recovered("access"))
		}})}
}

// signsIn gives an application its code, and has it redeemed, once.
func (p *soul) signsIn() *story {
	verifier, code := oauth2.GenerateVerifier(), ""
	redeem := func() (token string, err error) {
		var got struct {
			Token string `json:"access_token"`
		}
		err = p.ask("/oauth/token", url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {nowhere}, "code_verifier": {verifier}}, &got)
		return got.Token, err
	}
	return &story{steps: []step{
		{"authorize", func(doubt bool) error {
			if p.client == nil || doubt {
				if err := p.fresh(); err != nil {
					return err
				}
			}
			if err := p.open("/authorize?" + url.Values{"client_id": {"bank"}, "redirect_uri": {nowhere}, "response_type": {"code"}, "scope": {"openid"}, "state": {"s"}, "nonce": {"n"},
				"code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"}}.Encode()); err != nil {
				return err
			}
			if err := p.wander(); err != nil {
				return err
			}
			code = p.at.Query().Get("code")
			return p.wants("authorize", code != "")
		}},
		{"token", func(doubt bool) error {
			if doubt {
				used := false
				if err := p.m.look(&used, "SELECT redeemed_at IS NOT NULL FROM authz_codes WHERE hash = sha256($1)", []byte(code)); err != nil {
					return err
				}
				p.m.doubted("token", used)
			}
			token, err := redeem()
			if err != nil {
				return err
			}
			if doubt && p.status == http.StatusBadRequest { // used, or by now too old
				return nil
			}
			return p.answered("token", token != "", fmt.Sprintf("(SELECT redeemed_at FROM authz_codes WHERE hash = sha256('%s')) IS NOT NULL", code))
		}},
		{"token again", func(bool) error {
			token, err := redeem()
			if err != nil {
				return err
			}
			return p.wants("token again", token == "" && p.status == http.StatusBadRequest)
		}},
	}}
}
