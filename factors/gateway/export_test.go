package gateway

import (
	"errors"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/rest"
)

// Challenge is the challenge behind an id.
func Challenge(id string) (uuid.UUID, error) {
	found, ok := readID(verificationPrefix, id)
	if !ok {
		return uuid.Nil, errors.New("no id of a verification")
	}
	return found, nil
}

// Forget has a process hear of a change.
func (s *Tenants) Forget() { s.forget("") }

// VerificationID writes an id as the API does.
func VerificationID(id uuid.UUID) string { return writeID(verificationPrefix, id) }

// NewCode makes a code of an alphabet.
func (a Alphabet) NewCode(length int) (string, error) { return a.newCode(length) }

// Characters of an alphabet.
func (a Alphabet) Characters() string { return a.characters() }

// Operation is what the table says of one.
type Operation = operation

// Operations is the table.
func (g *Gateway) Operations() []Operation { return g.operations() }

// AnswerTo is what the description gives as the answer to an operation's example.
func AnswerTo(op *rest.Operation) any { return exampleAnswer(op) }

// Codes lists the codes of problems.
func Codes() []Code { return rest.Codes() }

// HasLink reports whether phones would make a link of something in a text.
func HasLink(text string) bool { return hasLink(text) }

// ProblemOf is a problem of that code.
func ProblemOf(code Code) *Problem { return problem(code) }
