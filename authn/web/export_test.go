package web

import "github.com/google/uuid"

// Proof is what a form of that session, sign-in and step carries.
func (h *Handler) Proof(session, flow uuid.UUID, step string) string {
	return h.proof(session, flow, step)
}
