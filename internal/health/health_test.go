package health_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/puppetsrv/puppetsrv/internal/health"
)

var t0 = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

// play feeds observations, one a second: '.' is a success, 'x' a refused
// connection, 'c' a failing certificate. It returns the verdicts as a string of
// 'U', 'D' and 'C', and the changes as '!'.
func play(s health.State, seen string, th health.Thresholds) (verdicts, changes string, last health.State) {
	reasons := map[rune]health.Reason{'.': health.ReasonOK, 'x': health.ReasonRefused, 'c': health.ReasonCertificate}
	for i, r := range seen {
		var changed bool
		s, changed = s.Next(health.Observation{Reason: reasons[r], Time: t0.Add(time.Duration(i) * time.Second)}, th)
		switch {
		case s.Verdict.CertificateFails():
			verdicts += "C"
		case s.Verdict.Down:
			verdicts += "D"
		default:
			verdicts += "U"
		}
		if changed {
			changes += "!"
		} else {
			changes += " "
		}
	}
	return verdicts, changes, s
}

func TestRiseAndFall(t *testing.T) {
	tests := []struct {
		name                    string
		rise, fall              int
		seen, verdicts, changes string
	}{
		{"always up", 2, 2, "....", "UUUU", "    "},
		{"one failure is none", 2, 2, ".x.x.", "UUUUU", "     "},
		{"two in a row are", 2, 2, ".xx.", "UUDD", "  ! "},
		{"and two successes undo it", 2, 2, "xx..", "UDDU", " ! !"},
		{"a success between starts anew", 3, 2, "xx..x..." + ".", "UDDDDDDU" + "U", " !     ! "},
		{"fall 1", 1, 1, "x.x.", "DUDU", "!!!!"},
		{"fall 3", 1, 3, "xxx.", "UUDU", "  !!"},
		{"down from the start", 2, 2, "xxxx", "UDDD", " !  "},
		{"the reason follows, and is a change only for a certificate", 2, 2, "xxccxx", "UDCCDD", " !! ! "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			verdicts, changes, _ := play(health.State{}, tt.seen, health.Thresholds{Rise: tt.rise, Fall: tt.fall})
			if verdicts != tt.verdicts || changes != tt.changes {
				t.Errorf("seen     %q\nverdicts %q, want %q\nchanges  %q, want %q", tt.seen, verdicts, tt.verdicts, changes, tt.changes)
			}
		})
	}
}

func TestNothingIsDownUntilProbedAndOldEvidenceIsNone(t *testing.T) {
	const maxAge = 30 * time.Second
	if v := (health.State{}).At(t0, maxAge); v.Down {
		t.Error("a master that was never observed is down")
	}
	_, _, s := play(health.State{}, "xx", health.Thresholds{Rise: 2, Fall: 2})
	if v := s.At(t0.Add(time.Second+maxAge), maxAge); !v.Down {
		t.Error("evidence of exactly the greatest age does not count")
	}
	if v := s.At(t0.Add(time.Second+maxAge+1), maxAge); v.Down {
		t.Error("evidence that is too old counts")
	}
}

func TestSinceIsTheTimeOfTheChange(t *testing.T) {
	_, _, s := play(health.State{}, ".xxxx", health.Thresholds{Rise: 2, Fall: 2})
	if want := t0.Add(2 * time.Second); !s.Verdict.Since.Equal(want) {
		t.Errorf("down since %v, want %v", s.Verdict.Since, want)
	}
}

// Whatever is seen: a verdict changes only at the end of a run of the right
// length, and Doubted says so in between.
func TestVerdictsChangeOnlyAfterRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		th := health.Thresholds{Rise: rapid.IntRange(1, 5).Draw(t, "rise"), Fall: rapid.IntRange(1, 5).Draw(t, "fall")}
		oks := rapid.SliceOf(rapid.Bool()).Draw(t, "oks")
		var s health.State
		run := 0
		for i, ok := range oks {
			was := s.Verdict.Down
			o := health.Observation{Time: t0.Add(time.Duration(i) * time.Second)}
			if !ok {
				o.Reason = health.ReasonTimeout
			}
			if ok == was {
				run++
			} else {
				run = 0
			}
			need := th.Fall
			if was {
				need = th.Rise
			}
			s, _ = s.Next(o, th)
			if want := run >= need; (s.Verdict.Down != was) != want {
				t.Fatalf("after %d of %d against %v: changed %v", run, need, was, s.Verdict.Down != was)
			}
			if s.Verdict.Down != was {
				run = 0
			}
			if s.Doubted() != (run > 0) {
				t.Fatalf("doubted %v with a run of %d", s.Doubted(), run)
			}
		}
	})
}

func TestCertificateValidFor(t *testing.T) {
	c := &health.Certificate{Names: []string{"m1.example.net", "*.dc1.example.net"}, NotAfter: t0, Trusted: true}
	tests := []struct {
		c    *health.Certificate
		name string
		at   time.Time
		want bool
	}{
		{c, "m1.example.net", t0, true},
		{c, "M1.Example.Net.", t0, true},
		{c, "m2.example.net", t0, false},
		{c, "m2.dc1.example.net", t0, true},
		{c, "a.m2.dc1.example.net", t0, false},
		{c, "dc1.example.net", t0, false},
		{c, "m1.example.net", t0.Add(1), false},
		{&health.Certificate{Names: c.Names, NotAfter: t0}, "m1.example.net", t0, false},
		{nil, "m1.example.net", t0, false},
	}
	for _, tt := range tests {
		if got := tt.c.ValidFor(tt.name, tt.at); got != tt.want {
			t.Errorf("%+v valid for %s: %v, want %v", tt.c, tt.name, got, tt.want)
		}
	}
}
