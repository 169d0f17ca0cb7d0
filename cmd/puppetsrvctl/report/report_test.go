package report_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/puppetsrv/puppetsrv/cmd/puppetsrvctl/report"
	"github.com/puppetsrv/puppetsrv/internal/admin"
)

var update = flag.Bool("update", false, "write the golden files")

// now is the time of every test, in a zone that is not the API's.
var now = time.Date(2026, 11, 22, 14, 3, 5, 0, time.FixedZone("CET", 3600))

func ago(d time.Duration) time.Time { return now.UTC().Add(-d) }

const day = 24 * time.Hour

// golden holds text against testdata/NAME.txt.
func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), text); d != "" {
		t.Errorf("%s (-want +got; -update writes it):\n%s", file, d)
	}
}

var page = report.Page{Now: now, Width: 80}

// zones are a node's.
func zones(serial uint32, hash string) []admin.ZoneState {
	return []admin.ZoneState{{Origin: "datacenter1.example.net.", Serial: serial, Hash: hash}, {Origin: "example.net.", Serial: 7, Hash: "aa"}}
}

func node(name, datacenter string) admin.Node {
	return admin.Node{
		Name: name, Datacenter: datacenter, State: "alive", Since: ago(9 * day), Camaster: "m1.example.net.",
		Version: "0.4.ns1", Zones: zones(41, "ab"), Age: 0.4, Agrees: true,
	}
}

func master(n int, datacenter string) admin.Master {
	m := admin.Master{Host: fmt.Sprintf("m%d.example.net.", n), Datacenter: datacenter, Port: 8140, Weight: 10, CA: n%2 == 1, Camaster: n == 1}
	for _, d := range []string{"datacenter1", "datacenter2"} {
		v := admin.Verdict{Datacenter: d, Listed: true, Priority: 20, Since: ago(9 * day)}
		if d == datacenter {
			v.Priority = 10
		}
		m.Verdicts = append(m.Verdicts, v)
		m.Evidence = append(m.Evidence, admin.Evidence{Observer: "ns" + d[len(d)-1:], Datacenter: d, Age: 0.6, Since: ago(9 * day)})
	}
	return m
}

// well is two datacenters with two masters each, where nothing is wrong.
func well() admin.Status {
	a, b := node("ns1", "datacenter1"), node("ns2", "datacenter2")
	a.Self = true
	return admin.Status{
		Node: "ns1", Datacenter: "datacenter1", Time: now.UTC(), Agree: true,
		Camaster: admin.Camaster{
			Name: "camaster.example.net.", Host: "m1.example.net.", Version: "0.4.ns1",
			Since: ago(3*day + time.Minute), Actor: "local:root", Reason: "planned move",
		},
		Nodes:   []admin.Node{a, b},
		Masters: []admin.Master{master(1, "datacenter1"), master(2, "datacenter1"), master(3, "datacenter2"), master(4, "datacenter2")},
	}
}

// cutOff makes a master down for the agents of one datacenter.
func cutOff(m *admin.Master, datacenter string) {
	for i := range m.Verdicts {
		if v := &m.Verdicts[i]; v.Datacenter == datacenter {
			v.Down, v.Reason, v.Since = true, "timeout", ago(14*time.Second)
			v.Detail = "dial tcp 10.2.0.3:8140: i/o timeout"
			v.Priority += 100
		}
		if e := &m.Evidence[i]; e.Datacenter == datacenter {
			e.Down, e.Reason, e.Since = true, "timeout", ago(14*time.Second)
			e.Detail = "dial tcp 10.2.0.3:8140: i/o timeout"
		}
	}
}

// ill is the same with everything wrong at once.
func ill() admin.Status {
	s := well()
	s.Agree = false
	s.Camaster.Forced = true
	s.Camaster.Conflicts = []admin.Write{{To: "m3.example.net.", Version: "0.4.ns2", Actor: "ops2.example.net"}}
	s.Nodes[1].Agrees = false
	s.Nodes[1].Camaster, s.Nodes[1].Version = "m3.example.net.", "0.5.ns2"
	s.Nodes[1].Zones = zones(43, "cd")
	dead := node("ns3", "datacenter2")
	dead.State, dead.Since = "dead", ago(3*time.Minute)
	isolated := node("ns4", "datacenter2")
	isolated.Isolated, isolated.Age = true, 40
	gone := node("ns5", "datacenter1")
	gone.State = "left"
	s.Nodes = append(s.Nodes, dead, isolated, gone)
	for i := range s.Masters[1].Verdicts {
		s.Masters[1].Verdicts[i].Priority += 100
	}
	s.Masters[1].Drain = &admin.Drain{Actor: "ops1.example.net", Reason: "kernel patches", Since: ago(2 * time.Minute), Until: now.Add(28 * time.Minute).UTC()}
	cutOff(&s.Masters[2], "datacenter1")
	for i := range s.Masters[3].Verdicts {
		v := &s.Masters[3].Verdicts[i]
		v.Down, v.Listed, v.Omitted, v.Reason, v.Since = true, false, "certificate", "certificate", ago(2*time.Hour)
		v.Detail = "certificate has expired"
	}
	s.Masters[3].Evidence = nil
	s.Expiring = []admin.Expiry{
		{Kind: "crl", Subject: "Puppet CA: m1.example.net", Time: now.Add(3 * day).UTC()},
		{Kind: "drain", Subject: "m2.example.net.", Time: now.Add(28 * time.Minute).UTC()},
	}
	s.Problems = []admin.Problem{
		{Severity: "error", Subject: "m4.example.net", Text: "Its certificate has expired: renew it with `puppetserver ca generate` and restart it."},
		{Severity: "warning", Subject: "disk", Text: "The state directory is read-only, serials are not kept."},
	}
	return s
}

func TestStatus(t *testing.T) {
	golden(t, "status-well", page.Status(well()))
	golden(t, "status-ill", page.Status(ill()))
	coloured := page
	coloured.Colour = true
	golden(t, "status-ill-colour", coloured.Status(ill()))
	golden(t, "status-nothing", page.Status(admin.Status{Node: "ns1", Time: now, Agree: true}))
}

// "May I fail over now?" is answered on one screen, whatever is wrong.
func TestStatusIsOneScreen(t *testing.T) {
	for name, s := range map[string]admin.Status{"well": well(), "ill": ill()} {
		limit := 24
		if name == "ill" {
			limit = 34 // a conflict, four nodes and three masters, all in trouble
		}
		lines := strings.Split(strings.TrimSuffix(page.Status(s), "\n"), "\n")
		if len(lines) > limit {
			t.Errorf("%s: %d lines", name, len(lines))
		}
		for _, line := range lines {
			if n := utf8.RuneCountInString(line); n > 80 {
				t.Errorf("%s: %d columns: %s", name, n, line)
			}
		}
	}
}

// Where nobody is left to look, what others see counts, and that is told.
func TestSeenFromElsewhere(t *testing.T) {
	s := well()
	cutOff(&s.Masters[2], "datacenter1")
	s.Masters[2].Evidence[0].Ignored = "dead"
	s.Masters[2].Evidence[1].Down = true
	if text := page.Status(s); !strings.Contains(text, "seen by 1 of 1 observer elsewhere\n") {
		t.Error(text)
	}
}

// Colours change no letter.
func TestColoursAreOnlyColours(t *testing.T) {
	coloured := page
	coloured.Colour = true
	for _, s := range []admin.Status{well(), ill()} {
		for name, render := range map[string]func(report.Page) string{
			"status":  func(p report.Page) string { return p.Status(s) },
			"masters": func(p report.Page) string { return p.Masters(s.Masters, true) },
		} {
			with, without := render(coloured), render(page)
			if with == without {
				t.Errorf("%s: no colours", name)
			}
			if d := cmp.Diff(without, uncoloured(with)); d != "" {
				t.Errorf("%s:\n%s", name, d)
			}
		}
	}
}

func uncoloured(s string) string {
	for _, code := range []string{"0", "1", "2", "31", "32", "33"} {
		s = strings.ReplaceAll(s, "\x1b["+code+"m", "")
	}
	return s
}

// Of many masters, only those that are not simply up are told, and not all of
// those when they are many.
func TestStatusOfManyMasters(t *testing.T) {
	s := well()
	for n := 5; n <= 100; n++ {
		s.Masters = append(s.Masters, master(n, "datacenter2"))
	}
	for _, n := range []int{16, 60, 77} {
		cutOff(&s.Masters[n], "datacenter2")
	}
	golden(t, "status-100", page.Status(s))
	for n := range s.Masters {
		cutOff(&s.Masters[n], "datacenter1")
	}
	text := page.Status(s)
	if n := strings.Count(text, "\n"); n > 60 {
		t.Errorf("%d lines", n)
	}
	if !strings.Contains(text, "and 80 more: puppetsrvctl masters\n") {
		t.Errorf("the rest is not counted:\n%s", text)
	}
}

func TestMasters(t *testing.T) {
	s := ill()
	s.Masters[0].Port = 8141
	s.Masters[0].Weight = 5
	s.Masters[0].Certificate = &admin.Certificate{NotAfter: now.Add(12 * day), Trusted: true}
	s.Masters[3].Joined = true
	s.Masters[3].Certificate = &admin.Certificate{NotAfter: now.Add(-day), Trusted: false}
	s.Masters[2].Evidence[1].Ignored = "isolated"
	golden(t, "masters", page.Masters(s.Masters, false))
	golden(t, "masters-evidence", page.Masters(s.Masters, true))
	golden(t, "masters-well", page.Masters(well().Masters, false))
	golden(t, "masters-none", page.Masters(nil, true))
}

func TestCamaster(t *testing.T) {
	c := ill().Camaster
	golden(t, "camaster", page.Camaster(c))
	golden(t, "camaster-unset", page.Camaster(admin.Camaster{Name: "camaster.example.net.", Host: "m1.example.net.", Version: "0"}))
	golden(t, "replacing", page.Replacing(c)+page.Already(well().Camaster))
}

func writes() []admin.Write {
	return []admin.Write{
		{Key: "camaster", From: "m1.example.net.", To: "m3.example.net.", Version: "1.5.ns1", Parent: "0.4.ns1", Time: ago(3 * time.Minute), Node: "ns1", Actor: "local:root", Reason: "drill", Forced: true, Current: true, Conflict: []string{"0.5.ns2"}},
		{Key: "drain/m2.example.net", From: "undrained", To: "drained", Version: "0.2.ns2", Parent: "0.1.ns2", Time: ago(2 * time.Hour), Until: now.Add(time.Hour), Node: "ns2", Actor: "ops1.example.net", Reason: "kernel patches, of which there are so many that this reason takes more than one line of a screen", Current: true},
		{Key: "camaster", To: "m1.example.net.", Version: "0.4.ns1", Time: ago(3 * day), Node: "ns1", Actor: "local:root", Reason: "planned move"},
	}
}

func TestHistory(t *testing.T) {
	golden(t, "history", page.History(writes()))
	golden(t, "history-none", page.History(nil))
}

func TestWrites(t *testing.T) {
	all := admin.Result{Write: writes()[0], Acked: 2, Of: 2, Met: true, Nodes: []admin.Ack{{Node: "ns1", Acked: true}, {Node: "ns2", Acked: true}}}
	some := admin.Result{Write: writes()[1], Acked: 1, Of: 3, Nodes: []admin.Ack{{Node: "ns1", Acked: true}, {Node: "ns2", Error: "no answer"}, {Node: "ns3"}}}
	golden(t, "set", page.Set("camaster.example.net.", all))
	golden(t, "drained", page.Drained("m2.example.net", some))
	golden(t, "key-change", page.KeyChange("added", admin.KeyResult{ID: "1a2b3c4d", Acked: 1, Of: 2, Nodes: some.Nodes[:2]}))
	line := page.Answers([]string{"ns1", "ns10"}, []string{"127.0.0.1:1053", "[2001:db8::2]:53"})
	golden(t, "answers", line(report.Answer{Node: "ns1", Address: "127.0.0.1:1053", After: 3140 * time.Microsecond})+
		line(report.Answer{Node: "ns10", Address: "[2001:db8::2]:53", After: 1234 * time.Millisecond})+
		line(report.Answer{Node: "ns10", Address: "[2001:db8::2]:53", Err: "it still answers m1.example.net"}))
}

func TestClusterAndKeys(t *testing.T) {
	golden(t, "cluster", page.Cluster(admin.Cluster{
		Node: "ns1", Encrypted: true, Refused: map[string]uint64{"unknown": 3, "duplicate": 1, "protocol": 0},
		Members: []admin.Member{
			{Name: "m1.example.net", Role: "master", Address: "10.1.0.1:7946", Datacenter: "datacenter1", State: "left", Since: ago(time.Hour)},
			{Name: "ns1", Role: "node", Address: "10.1.0.53:7946", Datacenter: "datacenter1", State: "alive", Since: ago(9 * day), Self: true},
			{Name: "ns2", Role: "node", Address: "10.2.0.53:7946", Datacenter: "datacenter2", State: "dead", Since: ago(14 * time.Second)},
		},
	}))
	golden(t, "cluster-plain", page.Cluster(admin.Cluster{Node: "ns1", Members: []admin.Member{{Name: "ns1", Role: "node", State: "alive", Self: true}}}))
	golden(t, "keys", page.Keys(admin.Keys{Nodes: []admin.NodeKeys{
		{Node: "ns1", Keys: []admin.Key{{ID: "1a2b3c4d", Primary: true}, {ID: "9f8e7d6c"}}},
		{Node: "ns2", Keys: []admin.Key{{ID: "1a2b3c4d", Primary: true}}},
		{Node: "ns3", Error: "no answer"},
	}}))
	golden(t, "keys-none", page.Keys(admin.Keys{Nodes: []admin.NodeKeys{{Node: "ns1"}}}))
}

func TestZones(t *testing.T) {
	golden(t, "zones", page.Zones([]admin.Zone{
		{Datacenter: "datacenter1", Domain: "datacenter1.example.net.", Origin: "datacenter1.example.net.", Serial: 41, RRsets: []admin.RRset{
			{Name: "_x-puppet._tcp.datacenter1.example.net.", Type: "SRV", TTL: 5, Records: []string{"10 10 8140 m1.example.net.", "20 10 8140 m3.example.net."}},
			{Name: "camaster.example.net.", Type: "CNAME", TTL: 5, Records: []string{"m1.example.net."}},
		}},
		{Datacenter: "datacenter2", Domain: "datacenter2.example.net.", Origin: "example.net.", Serial: 7},
	}))
}

func TestEvent(t *testing.T) {
	golden(t, "event", page.Event(admin.Event{ID: 7, Kind: "verdict", Time: ago(time.Second), Node: "ns1", Subject: "m2.example.net.", Text: "down in datacenter1: refused"}))
}

func TestFault(t *testing.T) {
	c := well().Camaster
	golden(t, "fault", report.Fault(&admin.Fault{Status: 409, Type: "unsafe", Title: "refused", Detail: "m2.example.net cannot become the camaster", Rules: []string{"it is not marked ca", "it is down in datacenter1"}})+
		report.Fault(&admin.Fault{Status: 409, Type: "version-conflict", Detail: "the camaster has another version than expected", Current: &c})+
		report.Fault(&admin.Fault{Status: 503, Title: "not ready"}))
}

// What others wrote does not act on the operator's terminal.
func TestForeignTextIsHarmless(t *testing.T) {
	const evil = "\x1b]0;owned\a\r\n\u202e\xff"
	s := ill()
	s.Node, s.Datacenter, s.Camaster.Reason, s.Camaster.Actor, s.Camaster.Host = evil, evil, evil, evil, evil
	s.Nodes[1].Name, s.Nodes[1].Camaster = evil, evil
	s.Masters[1].Drain.Reason, s.Masters[2].Host = evil, evil
	s.Masters[2].Verdicts[0].Detail, s.Masters[2].Evidence[0].Detail, s.Masters[2].Evidence[0].Ignored = evil, evil, evil
	s.Problems[0].Text, s.Problems[0].Severity, s.Expiring[0].Subject = evil, evil, evil
	w := writes()[0]
	w.Reason, w.Actor, w.Key, w.To, w.From, w.Conflict = evil, evil, evil, evil, evil, []string{evil}
	ack := []admin.Ack{{Node: evil, Error: evil}}
	for name, text := range map[string]string{
		"status":    page.Status(s),
		"masters":   page.Masters(s.Masters, true),
		"camaster":  page.Camaster(s.Camaster) + page.Replacing(s.Camaster) + page.Already(s.Camaster),
		"history":   page.History([]admin.Write{w}),
		"set":       page.Set(evil, admin.Result{Write: w, Of: 1, Nodes: ack}) + page.Drained(evil, admin.Result{Write: w, Of: 1, Nodes: ack}),
		"keys":      page.KeyChange("added", admin.KeyResult{ID: evil, Nodes: ack}) + page.Keys(admin.Keys{Nodes: []admin.NodeKeys{{Node: evil, Error: evil}, {Node: evil, Keys: []admin.Key{{ID: evil}}}}}),
		"cluster":   page.Cluster(admin.Cluster{Refused: map[string]uint64{evil: 1}, Members: []admin.Member{{Name: evil, Role: evil, State: evil, Address: evil, Datacenter: evil}}}),
		"zones":     page.Zones([]admin.Zone{{Datacenter: evil, Domain: evil, Origin: evil, RRsets: []admin.RRset{{Name: evil, Type: evil, Records: []string{evil}}}}}),
		"event":     page.Event(admin.Event{Kind: evil, Subject: evil, Text: evil, Node: evil}),
		"fault":     report.Fault(&admin.Fault{Detail: evil, Rules: []string{evil}, Current: &s.Camaster}),
		"an answer": page.Answers([]string{evil}, nil)(report.Answer{Node: evil, Address: evil, Err: evil}),
	} {
		if strings.ContainsAny(text, "\x1b\a\r\u202e") || !utf8.ValidString(text) {
			t.Errorf("%s: %q", name, text)
		}
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 119 * time.Minute: "119m", 3 * time.Hour: "3h",
		47 * time.Hour: "47h", 2 * day: "2d", 400 * day: "400d", -3 * time.Second: "3s",
	} {
		if got := report.Short(d); got != want {
			t.Errorf("%s is %s, want %s", d, got, want)
		}
	}
}
