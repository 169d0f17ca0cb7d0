package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/register"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// reseal puts this member's seal under entries whose own does not count any more: the
// node that wrote them is gone, its certificate expired or revoked. What was accepted
// once stays true, and a new member must be able to learn it.
func (c *Cluster) reseal() {
	id := c.policy.Load().Identity
	if id == nil {
		return
	}
	var fresh []register.Entry
	for e := range c.Registers().All() {
		if c.judge(&e) == nil {
			continue
		}
		s, err := id.Seal(kindEntry, e.Payload())
		if err == nil {
			err = c.judgeSeal(s)
		}
		if err != nil {
			c.log.Warningf("reseal", "Registers: the seal under %s %s does not count any more, and mine would not either: %s", e.Key, e.Version, err)
			return
		}
		fresh = append(fresh, e.WithSeal(keepSeal(s)))
	}
	if len(fresh) > 0 {
		c.registers.reseal(id.Leaf.Raw, fresh)
		c.cfg.Log.Infof("Registers: %d entries whose seals no longer count have mine now", len(fresh))
	}
}

// Standing says why the others do not take writes of this member, as far as it can
// know: its certificate is not of the CA, not valid or revoked, or is no node's. Nil
// if they do.
func (c *Cluster) Standing() error {
	p := c.policy.Load()
	if p.Identity == nil || p.Authority == nil {
		return errNoIdentity
	}
	if err := p.Authority.Verify(p.Identity.Leaf, nil, time.Now()); err != nil {
		return err
	}
	if !p.Signers(p.Identity.Name) {
		return fmt.Errorf("%s is no node: `admin_allow sign %s` on every node would make it one", p.Identity.Name, p.Identity.Name)
	}
	return nil
}

// judge says why an entry's seal does not count, nil if it does.
func (c *Cluster) judge(e *register.Entry) error {
	s, err := c.registers.sealed(e)
	if err != nil {
		return err
	}
	return c.judgeSeal(s)
}

// judgeSeal says why a seal does not count under a register entry. Its certificate has
// to be good now: the time in an entry is what its writer says. What a writer wrote
// before its certificate ended comes with the seal of another node; see reseal.
func (c *Cluster) judgeSeal(s trust.Sealed) error {
	p := c.policy.Load()
	if p.Authority == nil {
		return errors.New("no CA is configured that could say who wrote it")
	}
	who, err := p.Authority.Unseal(kindEntry, s, time.Now())
	if err != nil {
		return err
	}
	if !p.Signers(who) {
		return fmt.Errorf("%s may not write registers: `admin_allow sign %s` would allow it", who, who)
	}
	return nil
}

// errNoIdentity is why a member without certificate and key says nothing.
var errNoIdentity = errors.New("no certificate and key are configured to sign with: write `tls CERT KEY CA`")

// say seals v as something of kind.
func (c *Cluster) say(kind string, v any) (*trust.Sealed, error) {
	id := c.policy.Load().Identity
	if id == nil {
		return nil, errNoIdentity
	}
	payload, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	s, err := id.Seal(kind, payload)
	return &s, err
}

// open understands what s says, if its seal counts and allow agrees.
func (c *Cluster) open(kind string, s *trust.Sealed, v any, allow func(certname string) error) (certname string, err error) {
	p := c.policy.Load()
	if p.Authority == nil {
		return "", errors.New("no CA is configured that could say who sent it")
	}
	if err := json.Unmarshal(s.Payload, v); err != nil {
		return "", err
	}
	if certname, err = p.Authority.Unseal(kind, *s, time.Now()); err != nil {
		return "", err
	}
	return certname, allow(certname)
}

// speaksFor says why certname may not speak in a member's name, nil if it may: a
// node that the configuration trusts with registers, or the member itself.
func (c *Cluster) speaksFor(certname, member string) error {
	if p := c.policy.Load(); p.Signers(certname) || certname == member && (p.Admit == nil || p.Admit(member)) {
		return nil
	}
	return fmt.Errorf("it is sealed by %s, which is neither that nor a node: `admin_allow sign %s` would make it one", certname, certname)
}
