// Package cadir is a Puppet CA's directory as one set: read, verified, sealed, replaced
// whole, and opened or closed as a role.Service.
//
// puppetserver reads each of the files anew for each request and takes no lock that
// others could see, so all that is said of a set is said of what was read, and all that
// is changed is changed by rename, in an order in which every step leaves a set that
// verifies. A standby's CA is sealed: puppetserver cannot read the serial, and so signs
// nothing, while everything else goes on to work and can be replaced.
//
// It never makes a CA, never deletes one (what is replaced whole is kept beside), never
// gives back a serial, and never speaks to another host; casync does that.
package cadir
