package web

import (
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
	f.Title, f.Cancel = f.T("unmet.title"), ""
	f.Body = f.TC("unmet.weak")
	if len(p.SignIn.Session.Bound) == 0 {
		f.Body = f.TC("unmet.none")
	}
	return h.render(w, r, http.StatusOK, "unmet", f)
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
