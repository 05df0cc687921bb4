mvn --batch-mode --quiet exec:java -Dexec.mainClass=Scenario
