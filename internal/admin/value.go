package admin

import (
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/puppetsrv/puppetsrv/internal/register"
)

// Bounds of a drain's duration.
const (
	minDrain = time.Second
	maxDrain = 8760 * time.Hour // a year
)

// check normalises a body and says what is wrong with it.
func (s *SetCamaster) check() error {
	var err error
	if s.Host, err = hostname("host", s.Host); err != nil {
		return err
	}
	if err := checkReason(s.Reason); err != nil {
		return err
	}
	if s.Expect == "" {
		return bad("expect", "missing: want the version that is to be replaced, as GET /v1/camaster has it")
	}
	if _, err := register.ParseVersion(s.Expect); err != nil {
		return bad("expect", "%.200q is no version: want EPOCH.COUNTER.NODE, as in 0.3.ns1.example.net, or 0 for what was never written", s.Expect)
	}
	if err := s.checkKind(); err != nil {
		return err
	}
	return s.Wait.check()
}

func (s *SetCamaster) checkKind() error {
	switch s.Kind {
	case KindSet, KindSwitchover, KindFailover:
		if s.Handover != "" {
			return bad("handover", "%.300q: it goes with kind handover only", s.Handover)
		}
		return nil
	case KindHandover:
	default:
		return bad("kind", "%.50q: want handover, switchover, failover, or nothing", string(s.Kind))
	}
	var err error
	if s.Handover, err = hostname("handover", s.Handover); err != nil {
		return err
	}
	if s.Handover == s.Host {
		return bad("handover", "%s is the host itself: want the next camaster", s.Handover)
	}
	return nil
}

func (s *SetDrain) check() error {
	if err := checkReason(s.Reason); err != nil {
		return err
	}
	if s.For != "" {
		d, err := time.ParseDuration(s.For)
		if err != nil || d < minDrain || d > maxDrain {
			return bad("for", "%.50q: want a duration from 1s to 8760h, as in 30m or 2h30m", s.For)
		}
	}
	return s.Wait.check()
}

func (w *Wait) check() error {
	switch *w {
	case "":
		*w = WaitAll
	case WaitAll, WaitMajority, WaitNone:
	default:
		return bad("wait", "%.50q: want all, majority or none", *w)
	}
	return nil
}

// label is one label of a host name; the underscore is Windows'.
var label = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

// hostname normalises a host name: lower case, without the final dot.
func hostname(field, name string) (string, error) {
	host := strings.ToLower(strings.TrimSuffix(name, "."))
	if host == "" {
		return "", bad(field, "missing: want a master's host name, as in m3.example.net")
	}
	for l := range strings.SplitSeq(host, ".") {
		if len(host) > 253 || !label.MatchString(l) {
			return "", bad(field, "%.300q is no host name: want one as m3.example.net", name)
		}
	}
	return host, nil
}

// checkReason wants a line for people.
func checkReason(reason string) error {
	switch {
	case strings.TrimSpace(reason) == "":
		return bad("reason", "missing: say in a few words why, for the history")
	case len(reason) > register.MaxReason:
		return bad("reason", "%d bytes: want at most %d", len(reason), register.MaxReason)
	case !utf8.ValidString(reason):
		return bad("reason", "it is not UTF-8")
	}
	for _, r := range reason {
		// Not IsPrint, which has no blanks but one; control and formatting characters
		// can make a terminal or a log show something else.
		if !unicode.IsGraphic(r) {
			return bad("reason", "it has the character %U: want one line that can be printed", r)
		}
	}
	return nil
}

var keyPattern = regexp.MustCompile(`^[0-9a-f]{8}$`)

func keyID(id string) (string, error) {
	lower := strings.ToLower(id)
	if !keyPattern.MatchString(lower) {
		return "", bad("id", "%.50q is no key: want the 8 hex digits that GET /v1/keys has", id)
	}
	return lower, nil
}

// historyQuery reads the parameters of GET /v1/history. A limit of 0 is none.
func historyQuery(key, limit string) (string, int, error) {
	n := 0
	if limit != "" {
		var err error
		if n, err = strconv.Atoi(limit); err != nil || n < 1 {
			return "", 0, bad("limit", "%.50q: want a number from 1 up", limit)
		}
	}
	if host, ok := strings.CutPrefix(key, "drain/"); ok {
		host, err := hostname("key", host)
		return "drain/" + host, n, err
	}
	// Other keys may be a newer release's.
	if len(key) > register.MaxKey || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", 0, bad("key", "%.50q: want camaster or drain/HOST", key)
	}
	return key, n, nil
}
