package web

import (
	"html/template"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn/recovery"
)

// What a program is told of recoveries. Whoever has proved nothing is told the same for every name, here as on the pages.

// linkBody is what the page of a mailed link shows.
type linkBody struct {
	For  template.HTML
	kind recovery.Kind
}

// boundFacts is an authenticator, as its owner is shown it.
type boundFacts struct {
	Kind string `json:"kind"`
	Hint string `json:"hint,omitempty"`
	Name string `json:"name,omitempty"`
}

// where gives an address if there is something to be done there.
func where(ok bool, path string) string {
	if !ok {
		return ""
	}
	return path
}

func (b beginBody) facts() any {
	channels := make([]recovery.Channel, 0, len(b.Channels))
	for _, c := range b.Channels {
		channels = append(channels, c.Name)
	}
	return map[string]any{"action": b.Action, "username": b.Username, "known": b.Known, "channels": channels, "return": b.Return,
		"access": where(b.Access, recoverAccess), "stop": where(b.Stop, recoverStop)}
}

func (b checkBody) facts() any {
	return map[string]any{"action": where(b.Code && !b.Closed, recoverCheck), "text": b.Message, "digits": b.Digits, "again": where(b.Again != "", "/recover/again"),
		"ways": where(b.Other, recoverWays), "cancel": where(b.Cancel, recoverCancel), "start": b.Start}
}

func (b linkBody) facts() any {
	return map[string]any{"action": recovery.LinkPath, "kind": b.kind}
}

func (b waysBody) facts() any {
	type way struct {
		ID    string `json:"id"`
		Label string `json:"label"`
		Name  string `json:"name,omitempty"`
		Mail  bool   `json:"mail"` // a link, and no code
		Down  bool   `json:"unavailable"`
	}
	ways := make([]way, 0, len(b.Ways))
	for _, m := range b.Ways {
		ways = append(ways, way{ID: m.ID, Label: plainText(m.Label), Name: m.Name, Mail: m.ID == uuid.Nil.String(), Down: m.Why != ""})
	}
	return map[string]any{"action": where(len(ways) > 0, recoverWays), "ways": ways, "wait": where(b.Wait != "", "/recover/wait"), "cancel": recoverCancel}
}

func (b waitingBody) facts() any {
	return map[string]any{"ready": b.Ready, "until": b.Until.UTC(), "action": where(b.Ready, b.Path), "cancel": recoverCancel}
}

func (b newPasswordBody) facts() any {
	return map[string]any{"action": recoverPassword, "least": b.Least, "repair": where(b.Repair, recoverRepair), "cancel": recoverCancel}
}

func (b repairBody) facts() any {
	return map[string]any{"kept": append([]boundFacts{}, b.kept...), "lost": append([]boundFacts{}, b.lost...), "choices": b.Choices, "password": recoverPassword,
		"finish": where(b.Enough, recoverRepair), "cancel": recoverCancel}
}

func (b outcomeBody) facts() any {
	return map[string]any{"outcome": b.outcome, "sign_in": b.SignIn, "start": b.Again}
}
