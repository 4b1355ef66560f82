// Package ordering keeps the revisions that a program sees from going back.
//
// A serializable read is answered from the state of the one member that is asked, which may be behind the others: it is
// partitioned, or slow. A program that reads twice, from two members, can so be shown an older state after a newer one.
// A KV made with [NewKV] remembers the largest revision that any of its responses has shown, of writes too. When a read
// returns less than that, a function decides what to do:
//
//	cli.KV = ordering.NewKV(cli.KV, ordering.NewOrderViolationSwitchEndpointClosure(cli))
//
// The one of [NewOrderViolationSwitchEndpointClosure] has the read repeated until it comes to a member that is not
// behind, and gives up after some attempts. Linearizable reads and writes are never behind; the package costs them
// nothing.
package ordering
