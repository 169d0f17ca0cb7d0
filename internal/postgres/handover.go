package postgres

import (
	"errors"
	"fmt"

	"github.com/puppetsrv/puppetsrv/internal/role"
)

var (
	_ role.Cleaner  = (*Service)(nil)
	_ role.Follower = (*Service)(nil)
)

// Clean implements role.Cleaner: a primary that was shut down has sent all that it wrote
// to the standbys that were connected, and says where its log ends. One that was killed,
// or was started again since, in recovery, says neither.
func (s *Service) Clean(o role.Observation) error {
	f, ok := o.Facts.(*facts)
	switch {
	case !ok || f == nil:
		return errNotLooked
	case f.stopped && f.noData:
		return nil
	case f.stopped && f.control != nil && f.control.state == shutDown:
		return nil
	case f.stopped && f.control != nil:
		return fmt.Errorf("it was not shut down (%s), and where its log ends is not known", f.control.state)
	case f.primary && f.readOnly && s.cfg.Fence == FenceReadOnly:
		return nil
	case f.recovery:
		return errors.New("it was started again since it was closed")
	}
	return errors.New("it cannot be seen how it ended")
}

// Follows implements role.Follower: a former primary in recovery looks like a standby
// until it streams, or has been compared with its source.
func (s *Service) Follows(o role.Observation) error {
	f, ok := o.Facts.(*facts)
	switch {
	case !ok || f == nil:
		return errNotLooked
	case !f.diverged && !f.unsure && (f.streaming || f.compared):
		return nil
	}
	return errors.New("it does not stream yet, and it is not known whether it can")
}
