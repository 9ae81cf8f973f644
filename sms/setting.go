package sms

import (
	"errors"
	"fmt"
)

// SettingError is one thing that is wrong with the settings of a vendor.
type SettingError struct {
	Vendor string
	Key    string // the operator's name of the setting: "base_url"
	What   string // never with the value of a secret
	Cure   string
}

// Error implements error.
func (e *SettingError) Error() string {
	return fmt.Sprintf("vendor %s: %s %s: %s", e.Vendor, e.Key, e.What, e.Cure)
}

// Settings collects what is wrong with the settings of a vendor, for its constructor.
type Settings struct {
	Vendor string

	problems []error
}

// Need reports a setting that has no value.
func (s *Settings) Need(value, key, cure string) {
	if value == "" {
		s.Wrong(key, "is not set", cure)
	}
}

// Wrong reports a setting.
func (s *Settings) Wrong(key, what, cure string) {
	s.problems = append(s.problems, &SettingError{Vendor: s.Vendor, Key: key, What: what, Cure: cure})
}

// Err joins everything that was reported, and further errors.
func (s *Settings) Err(more ...error) error { return errors.Join(append(s.problems, more...)...) }
