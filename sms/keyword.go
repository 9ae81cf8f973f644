package sms

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// Keyword is what a reply asks for.
type Keyword string

// Keywords.
const (
	KeywordStop  Keyword = "stop"
	KeywordStart Keyword = "start"
	KeywordHelp  Keyword = "help"
)

// keywords are the words of 47 CFR 64.1200(a)(10) and of the CTIA's Messaging Principles section 5.1.3, without spaces, and those by which carriers
// elsewhere are asked.
var keywords = map[string]Keyword{
	"stop": KeywordStop, "stopall": KeywordStop, "unsubscribe": KeywordStop, "cancel": KeywordStop, "end": KeywordStop, "quit": KeywordStop,
	"revoke": KeywordStop, "optout": KeywordStop, "arret": KeywordStop, "stopp": KeywordStop, "fin": KeywordStop,
	"start": KeywordStart, "unstop": KeywordStart, "yes": KeywordStart, "optin": KeywordStart,
	"help": KeywordHelp, "info": KeywordHelp, "aide": KeywordHelp, "hilfe": KeywordHelp,
}

// ReadKeyword finds the keyword that a reply consists of, in any case and with any spaces and punctuation around and between; "" when it says anything else.
func ReadKeyword(text string) Keyword {
	if len(text) > maxReply {
		return ""
	}
	word := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) {
			return unicode.ToLower(r)
		}
		if unicode.IsDigit(r) {
			return r // "stop 2" is another word
		}
		return -1 // marks, spaces and punctuation
	}, norm.NFKD.String(text))
	return keywords[word]
}

// maxReply bounds what is read for a keyword.
const maxReply = 200
