package health_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/puppetsrv/puppetsrv/internal/health"
)

// observers are written as "NAME@DATACENTER:OPINIONS", with one letter a subject:
// U up, D down, C a failing certificate, - no evidence. A star marks the own.
func observers(s string) []health.Observer {
	var os []health.Observer
	for i, f := range strings.Fields(s) {
		name, opinions, _ := strings.Cut(f, ":")
		name, own := strings.CutPrefix(name, "*")
		name, dc, _ := strings.Cut(name, "@")
		o := health.Observer{Name: name, Datacenter: dc, Own: own}
		for _, r := range opinions {
			since := t0.Add(time.Duration(i) * time.Second)
			o.Opinions = append(o.Opinions, map[rune]health.Opinion{
				'U': {Known: true, Verdict: health.Verdict{Since: since}},
				'D': {Known: true, Verdict: health.Verdict{Down: true, Reason: health.ReasonRefused, Detail: name, Since: since}},
				'C': {Known: true, Verdict: health.Verdict{Down: true, Reason: health.ReasonCertificate, Detail: name, Since: since}},
				'-': {},
			}[r])
		}
		os = append(os, o)
	}
	return os
}

func verdicts(dc string, os []health.Observer) string {
	p := health.NewPanel(dc, os)
	var b strings.Builder
	for i := range os[0].Opinions {
		switch v := p.Verdict(i); {
		case v.CertificateFails():
			b.WriteByte('C')
		case v.Down:
			b.WriteByte('D')
		default:
			b.WriteByte('U')
		}
	}
	return b.String()
}

// DESIGN, "Who decides that a master is down". Subjects are m1 m2 m3 m4.
func TestVotes(t *testing.T) {
	tests := []struct {
		rule, observers, dc1, dc2 string
	}{
		{"alone", "*ns1@dc1:UDUU", "UDUU", "UDUU"},
		{"a datacenter's own observers decide", "*ns1@dc1:UUDD ns2@dc2:DDUU", "UUDD", "DDUU"},
		{"the majority of them", "*a@dc1:UUUD b@dc1:UDDD c@dc1:UUDD", "UUDD", "UUDD"},
		{"a tie is broken by the own view: up", "*a@dc1:UUUU b@dc1:UDUU", "UUUU", "UUUU"},
		{"a tie is broken by the own view: down", "a@dc1:UUUU *b@dc1:UDUU", "UDUU", "UDUU"},
		{"a tie without an own view is up", "a@dc1:UUUU b@dc1:UDUU *c@dc2:UDDD", "UUUU", "UDDD"},
		{"none alive there: all observers count", "*ns1@dc1:UUDU", "UUDU", "UUDU"},
		{"none alive there: the majority of all", "*a@dc1:UUDU b@dc1:UUDU c@dc3:UUUU", "UUDU", "UUDU"},
		{"one that reaches nothing distrusts itself", "*a@dc1:DDDD b@dc1:UUUU", "UUUU", "UUUU"},
		{"also when it is the only one there", "*a@dc1:DDDD b@dc2:UUDU", "UUDU", "UUDU"},
		{"all reach nothing: then it may be true", "*a@dc1:DDDD b@dc2:DDDD", "DDDD", "DDDD"},
		{"alone and reaching nothing", "*a@dc1:DDDD", "DDDD", "DDDD"},
		{"no evidence is no vote", "*a@dc1:-DUU b@dc1:D-UU", "DDUU", "DDUU"},
		{"no evidence in the datacenter: ask the others", "*a@dc1:-UUU b@dc2:DUUU", "DUUU", "DUUU"},
		{"no evidence at all is up", "*a@dc1:-UUU b@dc2:-UUU", "UUUU", "UUUU"},
		{"no evidence of anything is not isolation", "*a@dc1:---- b@dc2:UUDU", "UUDU", "UUDU"},
		{"a place nobody knows counts for none", "*a@:DUUU b@dc1:UUUU c@dc1:UUUU", "UUUU", "UUUU"},
		{"left out by a majority alone", "*a@dc1:UCUU b@dc1:UCUU c@dc1:UDUU", "UCUU", "UCUU"},
		{"too few saw the certificate: down only", "*a@dc1:UCUU b@dc1:UDUU c@dc1:UDUU", "UDUU", "UDUU"},
		{"too few saw the certificate, and one saw it up: down only", "a@dc1:UCUU *b@dc1:UDUU c@dc1:UUUU", "UDUU", "UDUU"},
		{"the only one down saw the certificate, against two", "a@dc1:UCUU *b@dc1:UUUU c@dc1:UUUU", "UUUU", "UUUU"},
		{"half saw the certificate, the own view among them", "*a@dc1:UCUU b@dc1:UDUU", "UCUU", "UCUU"},
		{"half saw the certificate, the own view not", "a@dc1:UCUU *b@dc1:UDUU", "UDUU", "UDUU"},
		{"half saw the certificate and nobody anything else", "a@dc1:UCUU *b@dc2:UCUU c@dc1:UUUU", "UUUU", "UCUU"},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			os := observers(tt.observers)
			if got := verdicts("dc1", os); got != tt.dc1 {
				t.Errorf("datacenter 1: %s, want %s", got, tt.dc1)
			}
			if got := verdicts("dc2", os); got != tt.dc2 {
				t.Errorf("datacenter 2: %s, want %s", got, tt.dc2)
			}
		})
	}
}

// Whoever asks: who is in the majority decides, and the order does not matter.
func TestVoteProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const subjects = 3
		var os []health.Observer
		for i := range rapid.IntRange(1, 7).Draw(t, "observers") {
			letters := rapid.StringOfN(rapid.RuneFrom([]rune("UUDC-")), subjects, subjects, -1).Draw(t, "opinions")
			dc := rapid.SampledFrom([]string{"dc1", "dc2", ""}).Draw(t, "datacenter")
			os = append(os, observers(string(rune('a'+i))+"@"+dc+":"+letters)...)
		}
		os[0].Own = true
		dc := rapid.SampledFrom([]string{"dc1", "dc2"}).Draw(t, "of")
		got := verdicts(dc, os)
		if shuffled := verdicts(dc, rapid.Permutation(os).Draw(t, "order")); shuffled != got {
			t.Fatalf("in another order %s, not %s", shuffled, got)
		}
		p := health.NewPanel(dc, os)
		for i := range subjects {
			up, down := false, false
			for _, o := range os {
				up = up || o.Opinions[i].Known && !o.Opinions[i].Verdict.Down
				down = down || o.Opinions[i].Known && o.Opinions[i].Verdict.Down
			}
			switch v := p.Verdict(i); {
			case v.Down && !down:
				t.Fatalf("subject %d is down and nobody says so", i)
			case !v.Down && down && !up:
				t.Fatalf("subject %d is up, and everybody who knows says it is down", i)
			case v.Down && v.Detail == "":
				t.Fatalf("subject %d is down without a reason", i)
			}
		}
	})
}
