// Package health turns observations into verdicts. It is pure: no clocks, no
// I/O, no goroutines. Rules:
//
//   - Fall failures in a row make a master down, Rise successes in a row make
//     it up again; anything in between changes nothing.
//   - A master without evidence is up: nothing is down until probed, and
//     evidence that is too old is no evidence.
package health

import (
	"crypto/x509"
	"slices"
	"strings"
	"time"
)

// Reason classifies an observation. The empty reason is success.
type Reason string

// The reasons an observation can fail for, from the socket upward.
const (
	ReasonOK          Reason = ""
	ReasonResolve     Reason = "resolve"     // the name has no address
	ReasonRefused     Reason = "refused"     // TCP reset or refused
	ReasonTimeout     Reason = "timeout"     // no answer in time, at any layer
	ReasonUnreachable Reason = "unreachable" // any other network error
	ReasonTLS         Reason = "tls"         // handshake failed, before a certificate could be judged
	ReasonCertificate Reason = "certificate" // not valid for the name: wrong name, expired, foreign CA
	ReasonHTTP        Reason = "http"        // no HTTP answer on a good connection
	ReasonStatus      Reason = "status"      // an HTTP answer other than 200 "running"
)

// Reasons lists every failing reason.
var Reasons = []Reason{
	ReasonResolve, ReasonRefused, ReasonTimeout, ReasonUnreachable, ReasonTLS,
	ReasonCertificate, ReasonHTTP, ReasonStatus,
}

// Observation is what an observer saw of a subject at a time.
type Observation struct {
	Observer string
	Subject  string // the master's host name
	Time     time.Time
	Reason   Reason
	Detail   string // for people: the error, one line
	Duration time.Duration
	// Certificate is what the subject presented, nil if it came to none.
	Certificate *Certificate
}

// OK reports whether the observation is a success.
func (o *Observation) OK() bool { return o.Reason == ReasonOK }

// Certificate is what is needed to know of a presented certificate later.
type Certificate struct {
	Names    []string // DNS names, lower case, without a trailing dot
	NotAfter time.Time
	Trusted  bool // the chain ends in the Puppet CA
}

// CertificateOf summarises leaf. As in Puppet's agents (OpenSSL), the common
// name counts only when there is no DNS name.
func CertificateOf(leaf *x509.Certificate, trusted bool) *Certificate {
	c := &Certificate{NotAfter: leaf.NotAfter, Trusted: trusted}
	for _, n := range leaf.DNSNames {
		c.Names = append(c.Names, strings.ToLower(n))
	}
	if len(c.Names) == 0 && leaf.Subject.CommonName != "" {
		c.Names = []string{strings.ToLower(leaf.Subject.CommonName)}
	}
	return c
}

// Equal reports whether c and o say the same; either may be nil.
func (c *Certificate) Equal(o *Certificate) bool {
	if c == nil || o == nil {
		return c == o
	}
	return c.Trusted == o.Trusted && c.NotAfter.Equal(o.NotAfter) && slices.Equal(c.Names, o.Names)
}

// ValidFor reports whether an agent that connects to name at the given time
// would accept c. A wildcard covers one label (RFC 6125, section 6.4.3).
func (c *Certificate) ValidFor(name string, at time.Time) bool {
	return c != nil && c.Trusted && !at.After(c.NotAfter) && c.Covers(name)
}

// Covers reports whether c carries name; a trailing dot is ignored.
func (c *Certificate) Covers(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for _, n := range c.Names {
		if n == name {
			return true
		}
		if rest, ok := strings.CutPrefix(n, "*."); ok {
			if _, parent, found := strings.Cut(name, "."); found && parent == rest {
				return true
			}
		}
	}
	return false
}

// Thresholds are the lengths of the runs that change a verdict; both at least 1.
type Thresholds struct{ Rise, Fall int }

// State is what is remembered of one subject. The zero value is "never
// observed".
type State struct {
	Verdict Verdict
	Last    Observation // newest observation; Time is zero before the first
	Run     int         // observations in a row that speak against Verdict
	RunFrom time.Time   // when that run began
	// Certificate is the newest one presented. The pointer changes only when
	// what it says does.
	Certificate *Certificate
}

// Verdict is up or down, with the reason and the time since.
type Verdict struct {
	Down   bool
	Reason Reason // why it is down
	Detail string
	Since  time.Time // of the last change; zero if there was none
}

// Next returns the state after o, and whether the verdict changed. While a
// master is down its reason follows the newest failure; that counts as a change
// only where it has other consequences, which is when a certificate begins or
// ceases to be the reason.
func (s State) Next(o Observation, th Thresholds) (next State, changed bool) {
	next = s
	next.Last = o
	if o.Certificate != nil && !o.Certificate.Equal(s.Certificate) {
		next.Certificate = o.Certificate
	}
	if o.OK() != s.Verdict.Down { // agrees with the verdict
		next.Run = 0
		if !o.OK() {
			next.Verdict.Reason, next.Verdict.Detail = o.Reason, o.Detail
		}
		return next, next.Verdict.CertificateFails() != s.Verdict.CertificateFails()
	}
	if s.Run == 0 {
		next.RunFrom = o.Time
	}
	next.Run = s.Run + 1
	need := th.Fall
	if s.Verdict.Down {
		need = th.Rise
	}
	if next.Run < need {
		return next, false
	}
	next.Run = 0
	next.Verdict = Verdict{Down: !o.OK(), Reason: o.Reason, Detail: o.Detail, Since: o.Time}
	return next, true
}

// Doubted reports whether the newest observation speaks against the verdict:
// the time to look again soon.
func (s State) Doubted() bool { return s.Run > 0 }

// Observed reports whether there is any evidence.
func (s State) Observed() bool { return !s.Last.Time.IsZero() }

// At returns the verdict that holds at a time: evidence older than maxAge is no
// evidence, and without evidence a master is up.
func (s State) At(now time.Time, maxAge time.Duration) Verdict {
	if !s.Observed() || now.Sub(s.Last.Time) > maxAge {
		return Verdict{}
	}
	return s.Verdict
}

// CertificateFails reports whether the verdict stands for a certificate that
// makes an agent abort its run instead of trying the next target.
func (v Verdict) CertificateFails() bool { return v.Down && v.Reason == ReasonCertificate }
