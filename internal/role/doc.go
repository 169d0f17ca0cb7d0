// Package role is what a master does to become, be, and stop being the camaster:
// it brings the single-writer services of its host to where the register says they
// belong. Decide says where, and is pure; a Controller gets them there step by step,
// with a Record on disk that a crash at any instruction leaves good for going on.
//
// The failure that it is there for is two masters that sign or write at once. So a
// host opens nothing unless the newest version it knows names it, it never acts on an
// older version than it has seen, and what it finds open and should not be is closed.
// It cannot keep a host from being named that has less than another; the conditions
// of a failover do that.
//
// It never decides who is camaster, never speaks to another host, and knows nothing
// of what is in a service.
package role
