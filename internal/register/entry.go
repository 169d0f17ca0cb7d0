package register

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits on one entry, in bytes.
const (
	MaxPayload = 4096
	MaxKey     = 512
	MaxName    = 255 // of a node or an actor
	MaxReason  = 500
)

// Entry is one write of a register: the value and the story of it.
type Entry struct {
	Key     string          `json:"key"`
	Value   json.RawMessage `json:"value"`
	Version Version         `json:"version"`
	Parent  Version         `json:"parent"` // the version it replaced, as its writer knew it
	Time    time.Time       `json:"time"`   // by the writer's clock: for people, and for how long its certificate must hold
	Expires time.Time       `json:"expires,omitzero"`
	Actor   string          `json:"actor"`
	Reason  string          `json:"reason"`
	Forced  bool            `json:"forced,omitempty"`

	// payload is the entry as it was written and signed. It is what is kept and
	// passed on, so that fields of a newer release are not lost here.
	payload []byte
	// seal is the proof of who wrote it, which this package does not look into.
	seal []byte
}

// Encode returns the payload of a new entry: what is to be signed.
func Encode(e Entry) ([]byte, error) {
	payload, err := json.Marshal(e)
	if err == nil {
		_, err = Decode(payload, nil)
	}
	return payload, err
}

// Decode understands a payload, and keeps it with its seal. Fields that this
// release does not know stay in the payload.
func Decode(payload, seal []byte) (Entry, error) {
	if len(payload) > MaxPayload {
		return Entry{}, fmt.Errorf("register entry of %d bytes: at most %d", len(payload), MaxPayload)
	}
	var e Entry
	if err := json.Unmarshal(payload, &e); err != nil {
		return Entry{}, fmt.Errorf("register entry: %w", err)
	}
	if err := e.check(); err != nil {
		return Entry{}, fmt.Errorf("register entry: %w", err)
	}
	e.payload, e.seal = bytes.Clone(payload), bytes.Clone(seal)
	return e, nil
}

func (e *Entry) check() error {
	switch {
	case e.Key == "" || len(e.Key) > MaxKey || strings.ContainsFunc(e.Key, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("key %.100q: 1 to %d letters without blanks", e.Key, MaxKey)
	case len(e.Value) == 0 || e.Value[0] != '{':
		return errors.New("the value is no object")
	case e.Version.IsZero():
		return errors.New("it has no version")
	case e.Parent.Compare(e.Version) >= 0:
		return fmt.Errorf("version %s is not newer than %s, which it replaces", e.Version, e.Parent)
	case e.Time.IsZero():
		return errors.New("it has no time")
	case !validText(e.Actor, MaxName):
		return fmt.Errorf("actor %.100q: 1 to %d bytes of text", e.Actor, MaxName)
	case !validText(e.Reason, MaxReason):
		return fmt.Errorf("reason %.100q: 1 to %d bytes of text", e.Reason, MaxReason)
	}
	return nil
}

// validText reports whether s is one line for people.
func validText(s string, most int) bool {
	return s != "" && len(s) <= most && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

func validName(s string) bool {
	return s != "" && len(s) <= MaxName && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' })
}

// Payload returns the bytes that were signed. They must not be changed.
func (e *Entry) Payload() []byte { return e.payload }

// Seal returns the proof that came with the entry. It must not be changed.
func (e *Entry) Seal() []byte { return e.seal }

// WithSeal returns e with another proof of the same payload.
func (e Entry) WithSeal(seal []byte) Entry {
	e.seal = bytes.Clone(seal)
	return e
}

// Compare is the order of entries: by version. Two different entries with one
// version can only come of a node that went back to an old disk; then the payload
// decides, so that all agree on one.
func (e *Entry) Compare(o *Entry) int {
	if c := e.Version.Compare(o.Version); c != 0 {
		return c
	}
	return bytes.Compare(e.payload, o.payload)
}

// Expired reports whether e is over at a time.
func (e *Entry) Expired(now time.Time) bool { return !e.Expires.IsZero() && !now.Before(e.Expires) }
