"""What tests of an agent are made of: small lakes, streams, scripted servers, drivers that are killed.

| module | for |
|---|---|
| `live_lake` | payments through the whole pipeline on real Delta tables, without a broker or a JVM |
| `small_lake` | one closed batch of payments with labels, decided by the real engine |
| `scripted_llm`, `scripted_http` | real servers on loopback that answer, and misbehave, by a script |
| `stores`, `store_servers` | real object stores on loopback, of pinned versions |
| `spoiled_store`, `store_proxy` | a proxy before one of them that delays, refuses, drops and counts |
| `alerts` | alerts as a consumer of the topic reads them |
| `streams` | events on a real broker, and what should become of them |
| `spark_cluster` | a real standalone Spark cluster; its executors and workers are killed, and others join |
| `drivers`, `killable_driver` | agents in processes of their own, killed at a step of the batch protocol |

Nothing that runs in production imports this package.
"""
