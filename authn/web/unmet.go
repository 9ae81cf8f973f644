package web

import (
	"html/template"
	"net/http"

	"github.com/watchword-auth/watchword/authn"
)

// lacking reports whether a sign-in waits for a factor that its person does not have and cannot be asked for: they are told so before the application is. A
// request without pages is answered at once.
func lacking(p *authn.Progress) bool {
	d := &p.Decision
	return d.Step == authn.StepFail && d.Failure == authn.Unmet && d.Strength > 0 && !p.SignIn.Requirement.Silent
}

// getUnmet says what is lacking, and that it is not the person's mistake.
func (h *Handler) getUnmet(w http.ResponseWriter, r *http.Request) error {
	v, err := h.open(r)
	if err != nil {
		return err
	}
	p, err := h.SignIns.Load(r.Context(), v.cookie, v.flow)
	if err != nil {
		return err
	}
	if !lacking(p) {
		return h.Next(w, r, p, v.cookie)
	}
	f := h.page(r, p.SignIn, "unmet")
	f.Title, f.Cancel, f.HomeURI = f.T("unmet.title"), "", "" // the way back is the button
	body := unmetBody{Why: f.TC("unmet.weak"), Add: h.mendable(f.say, p)}
	if len(p.SignIn.Session.Bound) == 0 {
		body.Why = f.TC("unmet.none")
	}
	f.Body = body
	return h.render(w, r, http.StatusOK, "unmet", f)
}

type unmetBody struct {
	Why template.HTML
	Add []addable // what the person can set up in their account, and would do
}

// mendable lists what would do and can be set up in the account, by somebody who can prove there that it is them. In the sign-in itself it is not set up: whoever knows the
// password could do it there.
func (h *Handler) mendable(say *tongue, p *authn.Progress) (list []addable) {
	if p.SignIn.RelyingParty.Own || !h.hasOther(p.SignIn.Session.Bound) {
		return nil
	}
	e := &enrolling{p: p}
	for _, page := range h.enrolPages() {
		if e.fits(page) {
			list = append(list, page.addable(say))
		}
	}
	return list
}

// postUnmet leads back to the application, which is told that it cannot have what it asked for.
func (h *Handler) postUnmet(w http.ResponseWriter, r *http.Request) error {
	v, err := h.posted(w, r)
	if err != nil {
		return err
	}
	p, err := h.SignIns.Load(r.Context(), v.cookie, v.flow)
	if err != nil {
		return err
	}
	if !h.proven(v.form, p.SignIn.Session.ID, v.flow, "unmet") {
		return errProof
	}
	if !lacking(p) { // bound meanwhile
		return h.Next(w, r, p, v.cookie)
	}
	return h.answers(p).Refuse(w, r, p, v.cookie, authn.Unmet)
}
