package role

import (
	"fmt"
	"strings"

	"github.com/puppetsrv/puppetsrv/internal/camaster"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/register"
)

// Knowledge is what a host knows of the camaster. The zero value knows nothing.
type Knowledge struct {
	Value   camaster.Value   // the newest; zero if there is none that can be understood
	Version register.Version // of Value; zero: the camaster was never set
	Parent  register.Version // that Value's writer replaced
	// Heard: all configured nodes have been heard since this start of the member. Waits
	// are those that have not.
	Heard bool
	Waits []string
	Boot  uint64 // the number of this start of the member, as its reports have it
}

// Know is what a register's state says. waits are the configured nodes that were not
// heard since this start.
func Know(s register.State, waits []string, boot uint64) Knowledge {
	k := Knowledge{Heard: len(waits) == 0, Waits: waits, Boot: boot}
	if e, ok := s.Get(camaster.Key); ok {
		k.Version, k.Parent = e.Version, e.Parent
		k.Value, _ = camaster.Parse(e)
	}
	return k
}

// Decision is where the role of a host belongs.
type Decision struct {
	State   string // evidence.Open, Standby, Closed or Waiting
	To      State  // what each service is to be for that; it may be Standby in all but Open
	Version register.Version
	Value   camaster.Value
	// Hold: what is open stays open, but nothing more is opened.
	Hold bool
	// Untouched: nothing is opened, and nothing closed.
	Untouched bool
	Former    bool   // it holds what it wrote as camaster, and another one is that now
	Reason    string // why it is not open, for people
}

// Decide says where the role of a host belongs, by the newest version that it knows or
// ever saw. boot is the BootID of the host now.
//
// It is open only if that version names the host and hands nothing over, and either all
// nodes were heard since the member started, or the version was written for this very
// start. If the host was opened under this version in this boot already, only the
// member was restarted: then what is open stays open meanwhile.
func Decide(host, boot string, k Knowledge, r Record) Decision {
	if r.damaged != nil {
		return Decision{State: evidence.Closed, To: Closed, Version: k.Version, Value: k.Value, Reason: r.damaged.Error()}
	}
	// A newer release may say more in a value than this one kept.
	if n := r.Newest.Value; k.Version == r.Newest.Version && (k.Value.Host != n.Host || k.Value.Handover != n.Handover) {
		return Decision{
			State: evidence.Closed, To: Closed, Version: k.Version, Value: r.Newest.Value,
			Reason: fmt.Sprintf("version %s says %s, and it said %s: a node went back to an old disk; set the camaster anew", k.Version, name(k.Value.Host), name(r.Newest.Value.Host)),
		}
	}
	if k.Version.Compare(r.Newest.Version) < 0 {
		k.Version, k.Parent, k.Value = r.Newest.Version, r.Newest.Parent, r.Newest.Value
	}
	d := Decision{State: evidence.Closed, To: Closed, Version: k.Version, Value: k.Value}
	if r.Data == Copy {
		d.To = Standby
	}
	switch {
	case k.Version.IsZero() && !k.Heard:
		d.State, d.Reason = evidence.Waiting, "it does not know who is camaster, and "+unheard(k.Waits)
	case k.Version.IsZero() && r.Data == Unsure:
		// Nobody was ever camaster here, and a running site is not to be stopped by the
		// first start of a member.
		d.State, d.Untouched = evidence.Waiting, true
		d.Reason = "the camaster was never set, and what is open here is left as it is: `puppetsrvctl camaster set HOST` once"
	case k.Version.IsZero():
		d.Reason = "the camaster was never set: `puppetsrvctl camaster set HOST` once"
	case k.Value.Host == host && k.Value.Handover != "":
		// It stays closed as it is, also with nothing of its own left: nobody is there to be
		// followed, and it may have to open again.
		d.To = Closed
		d.Reason = fmt.Sprintf("the role is being handed over to %s under %s", name(k.Value.Handover), k.Version)
	case k.Value.Host == host:
		restarted := boot != "" && r.OpenedBoot == boot && r.Opened == k.Version
		forThisStart := k.Boot != 0 && k.Value.Boot == k.Boot
		if k.Heard || forThisStart {
			return Decision{State: evidence.Open, To: Open, Version: k.Version, Value: k.Value}
		}
		d.Reason = fmt.Sprintf("it is camaster under %s, but since the member started %s: there may be a newer version", k.Version, unheard(k.Waits))
		d.State = evidence.Waiting
		if restarted {
			d.State, d.To, d.Hold = evidence.Open, Open, true
		}
	case r.Data == Copy:
		d.State = evidence.Standby
	case r.Data == Unsure:
		d.Reason = "it has no record of its role, and has yet to see what its services hold"
	default:
		d.Former = true
		if r.Rejoin != nil && r.Rejoin.State == rejoinRunning {
			d.To, d.Reason = Standby, "it is becoming a standby"
			break
		}
		was := "it holds data of its own"
		if !r.Opened.IsZero() {
			was = "it was open under " + r.Opened.String()
		}
		d.Reason = fmt.Sprintf("%s, and %s is camaster under %s: `puppetsrvctl rejoin %s` makes it a standby; what it wrote that the camaster does not have is lost then, and kept aside", was, name(k.Value.Host), k.Version, name(host))
	}
	return d
}

// unheard says who has not been heard.
func unheard(waits []string) string {
	if len(waits) == 0 {
		return "it has not heard all nodes"
	}
	return "it has not heard " + strings.Join(waits, ", ")
}

// name is a host as people write it.
func name(host string) string {
	if host == "" {
		return "nobody"
	}
	return strings.TrimSuffix(host, ".")
}
