"""The failure audit: was the query wrong, or the teacher's perception?"""
