package sources

import "time"

// HurryEvents shortens what a subscription waits for. It is called before Subscribe.
func (v *Vault) HurryEvents() {
	v.eventTimes.first, v.eventTimes.limit = 10*time.Millisecond, 40*time.Millisecond
	v.eventTimes.ping = 100 * time.Millisecond
}

// ImpatientEvents bounds how long an answer is waited for, to a ping and to the handshake.
func (v *Vault) ImpatientEvents(answer time.Duration) {
	v.eventTimes.pong, v.eventTimes.dial = answer, answer
}

// ForgiveEvents has a connection count as one that did not fail once it has lived for d, and a server that offers no events
// be asked again after as long.
func (v *Vault) ForgiveEvents(settled, again time.Duration) {
	v.eventTimes.settled, v.eventTimes.again = settled, again
}
