package role

import (
	"errors"
	"fmt"
	"time"
)

const (
	diskTime  = 5 * time.Second        // for one write
	diskAgain = 500 * time.Millisecond // between two that fail
)

// save writes the record if the disk is behind.
func (c *Controller) save() error {
	if !c.behind {
		return nil
	}
	c.mu.Lock()
	r := c.record.clone()
	c.mu.Unlock()
	return c.write(r)
}

// commit changes the record, on disk and then here; nowhere if the disk refuses.
func (c *Controller) commit(f func(r *Record)) error {
	c.mu.Lock()
	r := c.record.clone()
	c.mu.Unlock()
	f(&r)
	if err := c.write(r); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.record = r
	return nil
}

// note changes the record here at once, and on disk as soon as that lets it.
func (c *Controller) note(f func(r *Record)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.record.damaged == nil {
		f(&c.record)
		c.behind = true
	}
}

func (c *Controller) write(r Record) error {
	if r.damaged != nil {
		return r.damaged
	}
	err := c.put(r)
	if err != nil {
		err = fmt.Errorf("keeping the record of the role: %w", err)
		if c.trouble != err.Error() {
			c.cfg.Log.Errorf("%v", err)
		}
		c.trouble = err.Error()
		return err
	}
	c.behind, c.trouble = false, ""
	return nil
}

// put writes a file, and gives up on a disk that hangs: closing goes on without it.
func (c *Controller) put(r Record) error {
	data, err := r.encode()
	if err != nil {
		return err
	}
	if c.saving != nil {
		select {
		case <-c.saving:
			c.saving = nil
		default:
			return errors.New("the disk hangs")
		}
	}
	done := make(chan struct{})
	var result error
	go func() {
		defer close(done)
		result = c.cfg.Disk.Write(RecordFile, data)
	}()
	timer := time.NewTimer(diskTime)
	defer timer.Stop()
	select {
	case <-done:
		return result
	case <-timer.C:
		c.saving = done
		return fmt.Errorf("the disk has not written it within %v", diskTime)
	}
}
