package member

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/camaster"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/register"
	"github.com/puppetsrv/puppetsrv/internal/role"
)

// maxRole bounds what another member says of its role, in bytes.
const maxRole = 256 << 10

// askTimeout is how long another member's answer is waited for.
const askTimeout = time.Second

// ask gets another member's role, which looks now.
func (m *Member) ask(ctx context.Context, certname string) (RoleState, error) {
	var state RoleState
	// A datacenter that is gone must not cost a time-out in the middle of a failover.
	for _, p := range m.cluster.Peers() {
		if p.Name == certname && p.Status != gossip.Alive {
			return state, fmt.Errorf("%w: %s is %s", errGone, certname, p.Status)
		}
	}
	address, err := m.reach(certname)
	if err != nil {
		return state, fmt.Errorf("%w: %w", errGone, err)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/v1/role", nil)
	if err != nil {
		return state, err
	}
	client := m.client(certname)
	defer client.CloseIdleConnections()
	response, err := client.Do(r)
	if err != nil {
		return state, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxRole))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, strings.TrimSpace(string(data)))
	}
	if err != nil {
		return state, err
	}
	return state, json.Unmarshal(data, &state)
}

// clear says what is still waited for before this host opens: that every other host that
// may be open has closed, and that everything it wrote is here. An error says that nothing
// is waited for: old cannot be asked, and is lost.
func (m *Member) clear(ctx context.Context, old string) (wait string, err error) {
	done := make(chan struct{})
	go func() { // what looks at a disk may hang
		defer close(done)
		wait, err = m.clearNow(ctx, strings.TrimSuffix(old, "."))
	}()
	select {
	case <-done:
		return wait, err
	case <-ctx.Done():
		return "this host cannot be looked at in time", nil
	}
}

func (m *Member) clearNow(ctx context.Context, old string) (wait string, err error) {
	version := m.role.Decision().Version
	own := make(chan RoleState, 1)
	go func() { own <- m.roleState(ctx) }()
	lost := m.lost()
	// The one that was named last need not be the one that is open: it may never have
	// become so.
	hosts := []string{old}
	if ca := m.settings().Roles.CA; ca != nil {
		for _, h := range ca.Replicas {
			if h != old && h != m.settings().Certname {
				hosts = append(hosts, h)
			}
		}
	}
	mine := <-own
	for _, h := range hosts {
		state, e := m.ask(ctx, h)
		switch {
		case e == nil && state.Role == nil && h != old:
			continue // it has no roles
		case e == nil && state.Role == nil:
			e = fmt.Errorf("%s says nothing of a role", h)
		case e == nil && h != old:
			if wait := unclosed(h, &state, version); wait != "" {
				return wait, nil
			}
			continue
		case e == nil:
			if wait := unclosed(h, &state, version); wait != "" {
				return wait, nil
			}
			if wait := missing(h, &state, &mine); wait != "" {
				return wait, nil
			}
			continue
		}
		switch {
		case h != old:
			// It is gone, or cut off: the operator who named this host knew.
		case lost, errors.Is(e, errGone):
			err = e
		default: // it may be busy
			return fmt.Sprintf("%s cannot be asked whether it has closed: %s", h, e), nil
		}
	}
	return "", err
}

// lost reports whether the camaster was named because the one before is lost.
func (m *Member) lost() bool {
	e, ok := m.cluster.Registers().Get(camaster.Key)
	var v struct {
		Kind string `json:"kind"`
	}
	return ok && (e.Forced || json.Unmarshal(e.Value, &v) == nil && v.Kind == string(admin.KindFailover))
}

// unclosed says why another host may still be open: nothing, once it has seen a version
// and closed.
func unclosed(host string, theirs *RoleState, version register.Version) string {
	seen, err := register.ParseVersion(theirs.Role.Version)
	if err != nil || seen.Compare(version) < 0 {
		return fmt.Sprintf("%s has not seen version %s yet", host, version)
	}
	for _, s := range theirs.Role.Services {
		if s.State != string(role.Closed) && s.State != string(role.Standby) {
			return fmt.Sprintf("%s of %s is %s", s.Name, host, s.State)
		}
	}
	return ""
}

// missing says what a host that has closed has and this one does not.
func missing(host string, theirs, own *RoleState) string {
	if t, o := theirs.PostgreSQL, own.PostgreSQL; t != nil && o != nil && o.Role != "primary" {
		end := t.Written
		if t.Role == "standby" { // it was started again, and only reads its own log
			end = t.Received
		}
		switch {
		case o.Role != "standby":
			return "PostgreSQL of this host cannot be seen"
		case t.System != "" && t.System != o.System:
			// Another database: there is nothing to wait for.
		case end == 0:
			return fmt.Sprintf("it is not known how far PostgreSQL of %s has written", host)
		case end > o.Received:
			return fmt.Sprintf("%d bytes that PostgreSQL of %s has written are not here yet", end-o.Received, host)
		}
	}
	if t, o := theirs.CA, own.CA; t != nil && o != nil && t.Complete && t.Hash != o.Hash {
		return fmt.Sprintf("the CA's files are not those of %s yet", host)
	}
	return ""
}

// errGone is why a member is not asked: gossip has lost it.
var errGone = errors.New("it is no member any more")

var errNoRoles = errors.New("this host has no roles: nothing of a camaster is configured in its member.yaml")
