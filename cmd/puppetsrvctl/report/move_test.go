package report_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/puppetsrv/puppetsrv/cmd/puppetsrvctl/report"
	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// held are masters with members: m1 is open, m3 its standby.
func held() admin.Status {
	s := well()
	services := func(state string) []evidence.Service {
		return []evidence.Service{{Name: "ca", State: state}, {Name: "postgresql", State: state}, {Name: "puppetdb", State: state}}
	}
	s.Masters[0].Member = &admin.MasterMember{Name: "m1.example.net", State: "alive", Fresh: true, Age: 0.4, Evidence: evidence.Evidence{
		Code:       []evidence.Environment{{Name: "production", Revision: "1"}, {Name: "test", Revision: "1"}},
		CA:         &evidence.CA{Mode: "hot", Complete: true},
		PostgreSQL: &evidence.PostgreSQL{Role: "primary", Written: 5000},
		Role:       &evidence.Role{State: evidence.Open, Version: "0.4.ns1", Services: services("open")},
	}}
	s.Masters[2].Member = &admin.MasterMember{Name: "m3.example.net", State: "alive", Fresh: true, Age: 0.6, Evidence: evidence.Evidence{
		Code:       []evidence.Environment{{Name: "production", Revision: "1"}, {Name: "test", Revision: "1"}},
		CA:         &evidence.CA{Mode: "hot", Complete: true, Sealed: true, Synced: ago(2 * time.Second)},
		PostgreSQL: &evidence.PostgreSQL{Role: "standby", Received: 5000, PrimaryWritten: 5000, Streaming: true, Current: ago(time.Second)},
		Role:       &evidence.Role{State: evidence.Standby, Version: "0.4.ns1", Services: services("standby")},
	}}
	return s
}

// mended is after a failover: m3 is opening, m1 is a former camaster, m5 has fallen behind.
func mended() admin.Status {
	s := held()
	s.Camaster.Host, s.Camaster.Version, s.Camaster.Kind, s.Camaster.Reason = "m3.example.net.", "1.5.ns1", admin.KindFailover, "datacenter1 is lost"
	s.Masters[0].Camaster, s.Masters[2].Camaster = false, true
	r := s.Masters[0].Role()
	r.State, r.Former, r.Version = evidence.Closed, true, "1.5.ns1"
	s.Masters[0].Member.Evidence.PostgreSQL.Role = "stopped"
	r = s.Masters[2].Role()
	r.State, r.Version, r.Reason = evidence.Opening, "1.5.ns1", "postgresql: pg_promote()"
	r.Services[0].State = "open"
	m := master(5, "datacenter2")
	m.Member = &admin.MasterMember{Name: "m5.example.net", State: "dead", Age: 200, Evidence: evidence.Evidence{
		Code:       []evidence.Environment{{Name: "production", Revision: "2"}},
		CA:         &evidence.CA{Mode: "hot", Complete: true, Synced: ago(5 * time.Minute), Error: "connection refused"},
		PostgreSQL: &evidence.PostgreSQL{Role: "standby", Received: 5000, PrimaryWritten: 50000, Current: ago(4 * time.Minute)},
		Role:       &evidence.Role{State: evidence.Waiting, Version: "0.4.ns1", Waits: []string{"ns2"}},
	}}
	s.Masters = append(s.Masters, m)
	return s
}

func TestRoles(t *testing.T) {
	golden(t, "roles-status", page.Status(held()))
	golden(t, "roles-status-failover", page.Status(mended()))
	golden(t, "roles-masters", page.Masters(held().Masters, false))
	golden(t, "roles-masters-failover", page.Masters(mended().Masters, false))
	s := held()
	s.Camaster.Handover, s.Camaster.Kind = "m3.example.net", admin.KindHandover
	s.Masters[0].Role().State = evidence.Closing
	golden(t, "roles-handover", page.Status(s)+"\n"+page.Camaster(s.Camaster))
	for _, s := range []admin.Status{held(), s} {
		if n := strings.Count(page.Status(s), "\n"); n > 24 {
			t.Errorf("%d lines", n)
		}
	}
}

func TestHistoryOfMoves(t *testing.T) {
	all := writes()[:1]
	all[0].Kind, all[0].Forced, all[0].Conflict = admin.KindFailover, false, nil
	all[0].Accepted = "4096 bytes of log are known to be missing; at most what was committed in the last 2.5 s"
	all = append(all, admin.Write{Key: "camaster", From: "m1.example.net", To: "m1.example.net", Handover: "m3.example.net", Kind: admin.KindHandover, Version: "0.5.ns1", Time: ago(time.Hour), Node: "ns1", Actor: "local:root", Reason: "power"})
	golden(t, "history-moves", page.History(all))
}

func plan() admin.Plan {
	return admin.Plan{
		Kind: admin.KindFailover, From: "m1.example.net", To: "m3.example.net", Version: "0.4.ns1",
		Conditions: []admin.Condition{
			{Name: "camaster lost", OK: true, Detail: "m1.example.net is down: refused; its member is dead since 2026-11-22T13:02:00Z"},
			{Name: "CA-capable", OK: true, Detail: "m3.example.net may become the camaster"},
			{Name: "up", Passed: admin.PassForce, Detail: "m3.example.net is down: timeout"},
			{Name: "replication", Passed: admin.PassAcceptDataLoss, Detail: "PostgreSQL on m3.example.net is 2097152 bytes behind: more than max_lag, 1048576"},
			{Name: "code", Warning: true, Detail: "other code than on m1.example.net: production has 1 here, 2 there"},
		},
		Loss: admin.Loss{Known: true, Bytes: 2 << 20, Since: ago(2500 * time.Millisecond), Seconds: 2.5, Detail: "2097152 bytes of log are known to be missing; at most what was committed in the last 2.5 s"},
		Steps: []admin.PlanStep{
			{Name: "write", Detail: "m3.example.net is camaster in place of m1.example.net, with the epoch raised"},
			{Name: "DNS", Detail: "every node answers m3.example.net for camaster.example.net"},
			{Host: "m3.example.net", Service: "postgresql", Name: "open", Detail: "now standby: streaming from m1.example.net"},
			{Host: "m1.example.net", Name: "close", Detail: "the moment its member sees the new version"},
		},
	}
}

func TestPlan(t *testing.T) {
	p := plan()
	golden(t, "plan-refused", page.Plan(p, false, false))
	golden(t, "plan-half", page.Plan(p, true, false))
	golden(t, "plan-passed", page.Plan(p, true, true))
	golden(t, "plan-moving", page.Moving(p))
	p.Kind, p.Handover = admin.KindSwitchover, true
	golden(t, "plan-handover", page.Plan(p, true, true)+page.Moving(p)+page.Passed(p))
	p.Conditions = p.Conditions[:2]
	if text := page.Passed(p); text != "" {
		t.Errorf("nothing was passed over, and it says %q", text)
	}
}

func TestSteps(t *testing.T) {
	line := page.Steps([]string{"m1.example.net.", "m30.example.net"})
	step := func(host, service, name, state, detail string, n float64) string {
		return line(report.Step{Host: host, Step: evidence.Step{Service: service, Name: name, State: state, Detail: detail, Milliseconds: n}})
	}
	golden(t, "steps", step("m30.example.net", "ca", "unseal", "done", "serial 03F2", 0.84)+
		step("m30.example.net", "postgresql", "pg_promote()", "done", "", 134.2)+
		step("m1.example.net", "postgresql", "stop", "failed", "time-out after 60s", 60000)+
		step("m1.example.net", "postgresql", "pg_basebackup", "running", "", 0)+
		page.Phases([]report.Phase{{Name: "flip", Took: 3.1, Done: 3.1}, {Name: "PostgreSQL promoted", Took: 134.24, Done: 181.9}, {Name: "total", Took: 190, Done: 190}})+
		page.Manual("m1.example.net", "systemctl stop postgresql\npg_rewind -R\n")+
		page.Rejoining("m1.example.net")+page.Standby("m1.example.net", false)+page.Took(1500*time.Millisecond)+page.Standby("m1.example.net", true))
}

// What members wrote does not act on the operator's terminal.
func TestForeignMovesAreHarmless(t *testing.T) {
	const evil = "\x1b]0;owned\a\r\n\u202e\xff"
	p := plan()
	p.From, p.To, p.Version, p.Loss.Detail = evil, evil, evil, evil
	for i := range p.Conditions {
		p.Conditions[i].Name, p.Conditions[i].Detail, p.Conditions[i].Passed = evil, evil, evil
	}
	p.Steps[2] = admin.PlanStep{Host: evil, Service: evil, Name: evil, Detail: evil}
	s := mended()
	s.Camaster.Handover, s.Camaster.Kind = evil, evil
	for _, i := range []int{0, 2, 4} {
		m := s.Masters[i].Member
		r := m.Evidence.Role
		m.State, r.State, r.Version, r.Reason, r.Waits = evil, evil, evil, evil, []string{evil}
		m.Evidence.Code = append(m.Evidence.Code, evidence.Environment{Name: evil, Revision: evil})
		m.Evidence.PostgreSQL.Role = evil
		for j := range r.Services {
			r.Services[j] = evidence.Service{Name: evil, State: evil, Detail: evil}
		}
	}
	w := writes()[0]
	w.Kind, w.Handover, w.Accepted = evil, evil, evil
	for name, text := range map[string]string{
		"plan":     page.Plan(p, false, false) + page.Plan(p, true, true) + page.Moving(p) + report.Refusals(p.Conditions),
		"status":   page.Status(s) + page.Masters(s.Masters, true) + page.Camaster(s.Camaster),
		"history":  page.History([]admin.Write{w}),
		"steps":    page.Steps([]string{evil})(report.Step{Host: evil, Step: evidence.Step{Service: evil, Name: evil, State: "failed", Detail: evil}}),
		"phases":   page.Phases([]report.Phase{{Name: evil}}),
		"rejoin":   page.Manual(evil, evil) + page.Rejoining(evil) + page.Standby(evil, true),
		"handover": page.HandingOver(admin.Result{Write: w}) + page.NoHandover(s.Camaster),
	} {
		if strings.ContainsAny(text, "\x1b\a\r\u202e") || !utf8.ValidString(text) {
			t.Errorf("%s: %q", name, text)
		}
	}
}
