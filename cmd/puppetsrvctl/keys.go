package main

import (
	"fmt"

	"github.com/puppetsrv/puppetsrv/cmd/puppetsrvctl/report"
	"github.com/puppetsrv/puppetsrv/internal/admin"
)

type keysCommand struct {
	List   keysList   `cmd:"" default:"1" help:"List the keys and the nodes that have them (default)."`
	Add    keysAdd    `cmd:"" help:"Make a key and add it on every node."`
	Use    keysUse    `cmd:"" help:"Make a key the one that encrypts."`
	Remove keysRemove `cmd:"" help:"Take a key out of every ring."`
}

type keysList struct{}

func (c *keysList) Run(s *session) error {
	client, err := s.ask()
	if err != nil {
		return err
	}
	keys, err := client.Keys(s.ctx)
	if err != nil {
		return err
	}
	return s.show(keys, func(p report.Page) string { return p.Keys(keys) })
}

type keysAdd struct{}

func (c *keysAdd) Run(s *session) error {
	client, err := s.ask()
	if err != nil {
		return err
	}
	r, err := client.AddKey(s.ctx)
	return s.keyChanged("added", r, err)
}

type keysUse struct {
	ID string `arg:"" name:"id" help:"The key, as listed."`
}

func (c *keysUse) Run(s *session) error {
	client, err := s.ask()
	if err != nil {
		return err
	}
	r, err := client.UseKey(s.ctx, c.ID)
	return s.keyChanged("now encrypting with", r, err)
}

type keysRemove struct {
	ID  string `arg:"" name:"id" help:"The key, as listed."`
	Yes bool   `short:"y" help:"Do not ask."`
}

func (c *keysRemove) Run(s *session) error {
	client, err := s.ask()
	if err != nil {
		return err
	}
	question := fmt.Sprintf("Remove key %s from every node? A node that encrypts with it is then cut off.", c.ID)
	if err := s.confirm(c.Yes, question); err != nil {
		return err
	}
	r, err := client.RemoveKey(s.ctx, c.ID)
	return s.keyChanged("removed", r, err)
}

func (s *session) keyChanged(done string, r admin.KeyResult, err error) error {
	if err != nil {
		return s.written(err)
	}
	if err := s.show(r, func(p report.Page) string { return p.KeyChange(done, r) }); err != nil {
		return err
	}
	if r.Acked < r.Of {
		return fail(exitIncomplete, "not every node has changed its key ring; do the same again when they can be reached")
	}
	return nil
}
