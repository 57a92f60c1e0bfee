//! Record batches (magic 2): header view, records, building, control records and produce-time checks.
