package member

import (
	"context"
	"io/fs"
	"log/slog"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/camaster"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/role"
)

// closedService is a service of the role that is closed.
type closedService struct{ state role.State }

func (closedService) Name() string { return "postgresql" }
func (s closedService) Observe(context.Context) role.Observation {
	return role.Observation{State: s.state}
}
func (closedService) Plan(role.Observation, role.State) ([]role.Step, error) { return nil, nil }

type emptyDisk struct{}

func (emptyDisk) Read(string) ([]byte, error) { return nil, fs.ErrNotExist }
func (emptyDisk) Write(string, []byte) error  { return nil }

// standby is a member whose role has just become a standby.
func standby(t *testing.T) *Member {
	t.Helper()
	m := &Member{awaited: make(chan struct{}, 1)}
	var err error
	m.role, err = role.New(role.Config{
		Host: "m1.example.net.", Services: []role.Service{closedService{role.Standby}}, Disk: emptyDisk{}, BootID: "b",
		Log: lines{slog.New(slog.DiscardHandler)},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.role.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	m.role.Know(role.Knowledge{Value: camaster.Value{Host: "m2.example.net."}, Version: version(t, "0.2.ns1"), Heard: true, Boot: 1})
	for end := time.Now().Add(10 * time.Second); m.role.Status().State != evidence.Standby; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%+v", m.role.Status())
		}
	}
	return m
}

// That the role has closed is told with what was seen of the database and the CA after
// it: by a glance at those two, before a look at everything that something holds up ends.
func TestClosedIsToldWithAGlance(t *testing.T) {
	m := standby(t)
	began := time.Now().Add(-time.Second)
	m.looked = look{began: began, evidence: evidence.Evidence{
		PostgreSQL: &evidence.PostgreSQL{Role: "primary", Written: 5}, CA: &evidence.CA{Serial: "1"},
		PuppetDB: &evidence.PuppetDB{State: "running", Writes: true}, Puppetserver: evidence.Puppetserver{State: "running"},
	}}
	told := func(what, state, db string, writes bool) {
		t.Helper()
		e, _ := m.evidence()
		if e.Role.State != state || e.PostgreSQL.Role != db || e.PuppetDB.Writes != writes || e.Puppetserver.State != "running" {
			t.Errorf("%s: the role is %s (%s), PostgreSQL %+v, PuppetDB %+v", what, e.Role.State, e.Role.Reason, e.PostgreSQL, e.PuppetDB)
		}
	}
	asked := func(what string, want bool) {
		t.Helper()
		select {
		case <-m.awaited:
			if !want {
				t.Errorf("%s: a glance is asked for", what)
			}
		default:
			if want {
				t.Errorf("%s: no glance is asked for", what)
			}
		}
	}
	told("before any glance", evidence.Closing, "primary", true)
	asked("before any glance", true)

	stopped := evidence.Evidence{PostgreSQL: &evidence.PostgreSQL{Role: "stopped", Written: 7}, CA: &evidence.CA{Serial: "2"}}
	m.glanced = look{began: began, evidence: stopped} // one from before it closed
	told("after one that is too old", evidence.Closing, "primary", true)
	asked("after one that is too old", true)

	m.glanced = look{began: time.Now(), evidence: stopped}
	told("after the glance", evidence.Standby, "stopped", false)
	asked("after the glance", false)

	m.looked.began = began.Add(time.Millisecond) // a look that began before, and ended after
	told("after a look that was held up", evidence.Standby, "stopped", false)
	if !m.looked.evidence.PuppetDB.Writes {
		t.Error("what was seen was changed")
	}

	m.looked.began = time.Now()
	m.looked.evidence.PostgreSQL = &evidence.PostgreSQL{Role: "standby"}
	m.looked.evidence.PuppetDB.Writes = false
	told("after a newer look at everything", evidence.Standby, "standby", false)
}

// Before the first look at everything there is nothing that a glance could be told with.
func TestNoGlanceBeforeTheFirstLook(t *testing.T) {
	m := standby(t)
	m.glanced = look{began: time.Now().Add(time.Hour), evidence: evidence.Evidence{PostgreSQL: &evidence.PostgreSQL{Role: "stopped"}}}
	e, _ := m.evidence()
	if e.Role.State != evidence.Closing || e.PostgreSQL != nil {
		t.Errorf("%+v, %+v", e.Role, e.PostgreSQL)
	}
	select {
	case <-m.awaited:
		t.Error("it glances again and again until the first look ends")
	default:
	}
}
