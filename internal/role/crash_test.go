package role_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/role"
)

// A scene is a piece of a camaster's life: what becomes known to the host, and what it
// has to come to.
type scene struct {
	know   role.Knowledge
	rejoin string // asked for
	state  string // to be reached
	opens  bool
	former bool
}

var scenes = map[string][]scene{
	"becomes camaster, and is replaced": {
		{know: heard(1, to(m2)), state: evidence.Standby},
		{know: heard(2, to(m1)), state: evidence.Open, opens: true},
		{know: heard(3, to(m3)), state: evidence.Closed, former: true},
		{know: heard(3, to(m3)), rejoin: "r1", state: evidence.Standby},
		{know: heard(4, to(m1)), state: evidence.Open, opens: true},
	},
	"hands over": {
		{know: heard(1, to(m1)), state: evidence.Open, opens: true},
		{know: heard(2, handover(m1, m3)), state: evidence.Closed},
		{know: heard(3, to(m3)), state: evidence.Standby},
	},
	"calls a handover off": {
		{know: heard(1, to(m1)), state: evidence.Open, opens: true},
		{know: heard(2, handover(m1, m3)), state: evidence.Closed},
		{know: heard(3, to(m1)), state: evidence.Open, opens: true},
		{know: heard(4, to(m1)), state: evidence.Open, opens: true},
		{know: heard(5, handover(m1, m3)), state: evidence.Closed},
		{know: heard(6, to(m3)), state: evidence.Standby},
	},
}

// TestEveryCrashPoint kills the member at each instruction of each scene in turn: before
// and after each step and each write to the disk, and each look. Then a new one goes on,
// in the same boot of the host or in another one, and all has to come to the same in the
// end. (A host that was booted while it handed over cannot know that it is a clean
// standby, and has to rejoin.)
func TestEveryCrashPoint(t *testing.T) {
	for title, script := range scenes {
		for _, reboot := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reboot %v", title, reboot), func(t *testing.T) {
				points := play(t, script, -1, reboot)
				if points < 50 {
					t.Fatalf("there are only %d points: the scene does not do what it is for", points)
				}
				for at := range points {
					if play(t, script, at, reboot); t.Failed() {
						t.Fatalf("killed at point %d of %d", at, points)
					}
				}
				t.Logf("killed at each of %d points", points)
			})
		}
	}
}

// play goes through a script with a kill at one point, and returns how many there are.
func play(t *testing.T, script []scene, kill int, reboot bool) (points int) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, m1)
		m.point = func(p *process, what string) {
			if strings.HasPrefix(what, "before fence") && m.recorded().Newest.Version.String() != p.ctl.Status().Version {
				t.Errorf("%s, and the record does not know why", what)
			}
			if points++; points-1 == kill {
				t.Logf("killed %s", what)
				p.kill()
			}
		}
		m.pace = func(p *process, what string) (time.Duration, error) {
			if err := p.at(what); err != nil {
				return 0, err
			}
			return time.Millisecond, nil
		}
		var now scene
		m.opens = func(s *disked, p *process) {
			r := m.record()
			if !now.opens || r.Newest.Version != now.know.Version {
				t.Errorf("%s opens under %s, as %+v is known", s.name, r.Newest.Version, now.know)
			}
			if r.Opened != now.know.Version || r.OpenedBoot != m.bootID() || r.Data != role.Own {
				t.Errorf("%s opens, and the record says %+v", s.name, r)
			}
		}
		p := m.run()
		p.ctl.Know(heard(0, to("")))
		killed := false
		for _, now = range script {
			tell := func() {
				p.ctl.Know(now.know)
				if now.rejoin != "" {
					if err := p.ctl.Rejoin(now.rejoin); err != nil {
						t.Error(err)
					}
				}
			}
			tell()
			for tries := 0; ; tries++ {
				if p.isDead() {
					<-p.done
					if reboot {
						m.reboot()
					}
					killed = true
					p = m.run()
					tell()
				}
				r := p.ctl.Status()
				if r.State == now.state && r.Version == now.know.Version.String() && r.Former == now.former && settled(m, now) {
					break
				}
				if killed && reboot && now.state == evidence.Standby && r.Former && now.rejoin == "" {
					now.rejoin = "after the boot"
					tell()
				}
				if tries > 6000 {
					t.Errorf("wanted %+v; got %+v, %s", now, r, m.states())
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if t.Failed() {
				break
			}
		}
		p.stop()
	})
	return points
}

// settled reports whether the services are as they should be in a scene.
func settled(m *machine, s scene) bool {
	switch states := m.states(); s.state {
	case evidence.Open:
		return states == "[open open open open]"
	case evidence.Standby:
		return states == "[standby standby standby standby]"
	default:
		return !m.anyOpen()
	}
}
